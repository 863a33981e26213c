"""What a checkpoint fits: compared before its tensors are touched."""

from __future__ import annotations

import json

from clusterseg.runs.checkpoints import CheckpointError
from clusterseg.runs.records import CheckpointHeader
from clusterseg.spec.model import TrainSpec


def identity(
    spec: TrainSpec, *, classes: int, size: tuple[int, int], samples: int
) -> dict[str, str]:
    """What must be the same for a run to go on, by the keys of job.yaml.

    `samples` is the size of the training part: the order of an epoch depends on it.
    """
    return {
        "model.name": spec.model.name,
        "model.options": json.dumps(spec.model.options, sort_keys=True),
        "model.classes": str(classes),
        "optimizer.name": spec.optimizer.name,
        "data.format": spec.data.format,
        "data.size": f"{size[0]}x{size[1]}",
        "data samples": str(samples),
        "loss.ignore": str(spec.loss.ignore),
        "precision": spec.precision,
        "seed": str(spec.seed),
    }


def check_fits(
    name: str, header: CheckpointHeader, wanted: dict[str, str], *, global_batch: int
) -> None:
    """Raises CheckpointError that lists every key in which the checkpoint `name` differs.

    A global batch of another size fits only at an epoch's end: inside an epoch the position
    counts steps of the old one.
    """
    found = header.identity
    differ = [
        f"{key} is {found.get(key, 'missing')} there, {value} now"
        for key, value in wanted.items()
        if found.get(key) != value
    ]
    if header.step_in_epoch > 0 and header.global_batch != global_batch:
        differ.append(
            f"the global batch is {header.global_batch} there, {global_batch} now, in the "
            "middle of an epoch"
        )
    if differ:
        raise CheckpointError(
            f"{name} does not fit this job: " + "; ".join(differ),
            code="checkpoint-mismatch",
            help="resume with the settings of the run, or submit a new one",
        )
