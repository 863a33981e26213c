"""What a checkpoint fits: compared before its tensors are touched."""

from __future__ import annotations

from clusterseg.runs.fit import (
    LIST,
    SAMPLES,
    Difference,
    differences,
    mismatch,
    size_text,
    spec_identity,
)
from clusterseg.runs.records import CheckpointHeader
from clusterseg.spec.model import TrainSpec


def identity(
    spec: TrainSpec, *, classes: int, size: tuple[int, int], samples: int, listed: str
) -> dict[str, str]:
    """What must be the same for a run to go on: of the job, and of the data set as it is.

    `samples` is the size of the training part: the order of an epoch depends on it. `listed` is the
    digest of its names (`data.dataset.names_digest`): which sample a place in that order means.
    """
    return {
        **spec_identity(spec),
        "model.classes": str(classes),
        "data.size": size_text(size),
        SAMPLES: str(samples),
        LIST: listed,
    }


def check_fits(
    name: str,
    header: CheckpointHeader,
    wanted: dict[str, str],
    *,
    force: bool = False,
) -> list[Difference]:
    """Raises CheckpointError that lists every key in which the checkpoint `name` differs.

    With `force`, those with which it makes sense to go on are returned instead.
    """
    found = differences(header, wanted)
    passed = [one for one in found if force and one.forceable]
    differ = [one for one in found if one not in passed]
    if differ:
        raise mismatch(name, differ)
    return passed
