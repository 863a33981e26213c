"""Evaluates one checkpoint of a run, by the trainer's own validation or as it is asked to.

The batches of several ranks are, put together, those that one rank reads: the confusion matrix,
and so accuracy and mean IoU, is the sum of the same parts. Runs in a process of its own
(`clusterseg.cluster.fanout`) and writes nothing into the run directory.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from clusterseg.errors import ClustersegError, ExitCode, lasting
from clusterseg.metrics import scores
from clusterseg.runs.checkpoint_file import read_verified
from clusterseg.runs.paths import RunPaths
from clusterseg.spec.model import TrainSpec
from clusterseg.train.benchmark import benchmark_scores, counting_of
from clusterseg.train.evaluation import Evaluation
from clusterseg.train.inference.device import prepare
from clusterseg.train.inference.how import How
from clusterseg.train.inference.source import Source, read_plan, training_of

if TYPE_CHECKING:
    from clusterseg.data import Dataset, Part, Sample
    from clusterseg.metrics.cityscapes import Tally
    from clusterseg.metrics.scores import Matrix
    from clusterseg.train.assembly import Assembly

FUNCTION = f"{__name__}:evaluate_checkpoint"


def evaluate_checkpoint(
    run_dir: str,
    *,
    path: str,
    sha256: str,
    submission: int,
    part: str = "validation",
    how: dict[str, Any] | None = None,
) -> dict[str, object]:
    """An `Evaluation` as plain values, with `matrix`, the confusion matrix, as lists, and `device`:
    why it was computed on the CPU, though the run trains on an accelerator, or None.

    `submission` is the one whose job.yaml the checkpoint was made under. `part` of the data set is
    validated as in training, or predicted as `how` (a `How`) says. Raises ClustersegError if the
    file is damaged or no longer the one with `sha256`, does not fit the job, or if there is nothing
    to validate on.
    """
    asked = msgspec.convert(how or {}, How)
    file = Path(path)
    layout, data = read_verified(file, sha256)  # before TensorFlow's seconds
    header = layout.header
    plan = read_plan(RunPaths(Path(run_dir)).submission(submission).plan)
    device = prepare(plan.spec.resources.accelerator)  # before what imports TensorFlow
    if asked.is_plain:
        spec, assembly = _assembled(run_dir, submission, header.micro_batch)
        from clusterseg.runs.fit import LIST
        from clusterseg.train.identity import check_fits

        samples = part_of(spec, assembly.dataset, part)
        # Which samples were trained on matters to nobody who validates.
        with lasting():
            check_fits(file.name, header, {k: v for k, v in assembly.identity.items() if k != LIST})
        assembly.state.load(file.name, layout, data)
        dataset = assembly.dataset
        loss, matrix, tally = _validated(spec, assembly, samples)
    else:
        dataset, loss, matrix, tally = _predicted(
            run_dir, submission, path, sha256=sha256, part=part, how=asked
        )
    found = Evaluation(
        file=file.name,
        epoch=header.epoch,
        step=header.step,
        val_loss=finite(loss),
        sha256=sha256,
        t=time.time(),
        part=part,
        how=None if asked.is_plain else asked,
        cityscapes=benchmark_scores(tally),
        **_scores(matrix, _names(dataset, len(matrix))),
    )
    values: dict[str, object] = msgspec.to_builtins(found)
    return {**values, "matrix": matrix.tolist(), "device": device.note}


def finite(value: float) -> float | None:
    """None for NaN and infinity, which JSON does not have."""
    return float(value) if np.isfinite(value) else None


def part_of(spec: TrainSpec, dataset: Dataset, name: str) -> Part:
    """The part called `train`, `validation` or `test`. Raises ClustersegError if there is none."""
    if name == "test" and dataset.test is not None:
        return dataset.test()
    part = {"train": dataset.train, "validation": dataset.validation}.get(name)
    if part:
        return part
    raise ClustersegError(
        f"the data in {spec.data.root} have no {name} part with labels",
        code="no-validation",
        help="train.data.validation_split takes one from the training part"
        if name == "validation"
        else "--part validation is there in every run that validates",
        exit_code=ExitCode.FAILED,
    )


def _scores(matrix: Matrix, names: list[str]) -> dict[str, Any]:
    tables = {
        "iou": scores.class_iou(matrix),
        "f1": scores.class_f1(matrix),
        "accuracy": scores.class_accuracy(matrix),
    }
    return {
        "val_accuracy": finite(scores.pixel_accuracy(matrix)),
        "val_mean_iou": finite(scores.mean_iou(matrix)),
        "val_mean_accuracy": finite(scores.mean_accuracy(matrix)),
        "val_mean_f1": finite(scores.mean_f1(matrix)),
        "val_frequency_weighted_iou": finite(scores.frequency_weighted_iou(matrix)),
        "classes": {
            name: {key: finite(table[number]) for key, table in tables.items()}
            for number, name in enumerate(names)
        },
    }


def _names(dataset: Dataset, count: int) -> list[str]:
    more = range(dataset.classes, count)
    return [*dataset.class_names, *(f"class {number}" for number in more)]


def _validated(
    spec: TrainSpec, assembly: Assembly, part: Part
) -> tuple[float, Matrix, Tally | None]:
    """(loss, confusion matrix, what the benchmark counts), as training validates."""
    from clusterseg.train.communicator.solo import SoloCommunicator
    from clusterseg.train.feeding import validation_batches
    from clusterseg.train.validation import validate

    assembly = replace(assembly, dataset=replace(assembly.dataset, validation=part))
    counting = counting_of(assembly.dataset, part)
    with validation_batches(spec, assembly, rank=0, world_size=1) as batches:
        result = validate(
            batches,
            assembly.evaluation_step,
            SoloCommunicator(),
            classes=assembly.classes,
            agree=lambda *wishes: (False, list(wishes)),
            leave=lambda waited: False,
            judge=counting.batch if counting else None,
        )
    if result is None:
        raise RuntimeError("nobody asked it to stop")
    return result.loss, result.matrix, counting.total if counting else None


def _predicted(
    run_dir: str, submission: int, path: str, *, sha256: str, part: str, how: How
) -> tuple[Dataset, float, Matrix, Tally | None]:
    """Of each picture of a part, one by one, as `how` says; there is no loss."""
    plan = read_plan(RunPaths(Path(run_dir)).submission(submission).plan)
    spec = training_of(plan.spec)
    source = Source(train=spec, directory=plan.directory, weights=path, sha256=sha256)
    from clusterseg.data import open_dataset
    from clusterseg.data.files import is_of_the_file, read_labels
    from clusterseg.train.inference.network import opened
    from clusterseg.train.inference.predictor import Predictor

    network = opened(source)
    dataset = open_dataset(spec.data, spec.loss.ignore)
    samples = part_of(spec, dataset, part)
    predictor = Predictor(network, how)
    counting = counting_of(dataset, samples)
    classes = len(network.classes)
    matrix = np.zeros((classes, classes), np.int64)
    for number, sample in enumerate(samples.samples):
        try:
            labels = read_labels(samples, number)
            picture = _picture(sample)
        except ClustersegError as error:
            error.is_lasting = is_of_the_file(error)
            if spec.data.on_unreadable == "skip" and error.is_lasting:
                continue
            raise
        found = predictor.predict(picture, sample.image.stem).classes
        counted = (labels >= 0) & (labels != (-1 if spec.loss.ignore is None else spec.loss.ignore))
        cells = labels[counted].astype(np.int64) * classes + found[counted]
        matrix += np.bincount(cells, minlength=classes**2).reshape(classes, classes)
        if counting:
            counting.add(number, found)
    return dataset, float("nan"), matrix, counting.total if counting else None


def _picture(sample: Sample) -> Any:
    from clusterseg.data.sources import image_data
    from clusterseg.train.inference.frames import decoded

    try:
        return decoded(image_data(sample), sample.image)
    except OSError as error:
        raise ClustersegError(
            f"{sample.image}: not readable ({error.strerror or error})", code="unreadable-picture"
        ) from error


@lru_cache(maxsize=1)  # a process evaluates many checkpoints of one run
def _assembled(run_dir: str, submission: int, batch: int) -> tuple[TrainSpec, Assembly]:
    """With the batches that the training had: sums of others differ in their last bits."""
    plan = read_plan(RunPaths(Path(run_dir)).submission(submission).plan)
    spec = training_of(plan.spec)
    os.chdir(plan.directory)  # relative paths in job.yaml start there
    threads = prepare(plan.spec.resources.accelerator).threads
    if spec.deterministic:
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    from clusterseg.train.assembly import assemble
    from clusterseg.train.batching import fresh
    from clusterseg.train.communicator.solo import SoloCommunicator

    # No step is trained here: the flags that ranks agree on in it are of no account.
    batching = fresh(msgspec.structs.replace(spec, batch_size=batch or spec.batch_size), 1)
    return spec, assemble(spec, SoloCommunicator(), flags=0, threads=threads, batching=batching)
