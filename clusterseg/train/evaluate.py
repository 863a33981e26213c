"""Evaluates one checkpoint of a run on its validation part, by the trainer's own validation.

The batches of several ranks are, put together, those that one rank reads: the confusion matrix,
and so accuracy and mean IoU, is the sum of the same parts. Runs in a process of its own
(`clusterseg.cluster.fanout`) and writes nothing into the run directory.
"""

from __future__ import annotations

import os
import time
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.runs.checkpoint_file import read_verified
from clusterseg.runs.paths import RunPaths
from clusterseg.spec.model import JobSpec, TrainSpec
from clusterseg.train.evaluation import Evaluation

if TYPE_CHECKING:
    from clusterseg.train.assembly import Assembly

FUNCTION = f"{__name__}:evaluate_checkpoint"


class PlanPart(msgspec.Struct):
    """What is needed of plan.json (`clusterseg.plan.model.Plan`)."""

    spec: JobSpec
    directory: str = "."


def evaluate_checkpoint(
    run_dir: str, *, path: str, sha256: str, submission: int
) -> dict[str, object]:
    """An `Evaluation` as plain values.

    `submission` is the one whose job.yaml the checkpoint was made under. Raises ClustersegError
    if the file is damaged or no longer the one with `sha256`, does not fit the job, or if there
    is nothing to validate on.
    """
    file = Path(path)
    layout, data = read_verified(file, sha256)  # before TensorFlow's seconds
    header = layout.header
    spec, assembly = _assembled(run_dir, submission, header.micro_batch)
    from clusterseg.runs.fit import LIST
    from clusterseg.train.communicator.solo import SoloCommunicator
    from clusterseg.train.feeding import validation_batches
    from clusterseg.train.identity import check_fits
    from clusterseg.train.progress import finite
    from clusterseg.train.validation import validate

    if not len(assembly.dataset.validation):
        raise ClustersegError(
            f"the data of {RunPaths(Path(run_dir)).run_id} have no validation part",
            code="no-validation",
            help="train.data.validation_split takes one from the training part",
            exit_code=ExitCode.FAILED,
        )
    # Which samples were trained on matters to nobody who validates.
    check_fits(file.name, header, {k: v for k, v in assembly.identity.items() if k != LIST})
    assembly.state.load(file.name, layout, data)
    with validation_batches(spec, assembly, rank=0, world_size=1) as batches:
        result = validate(
            batches,
            assembly.evaluation_step,
            SoloCommunicator(),
            classes=assembly.classes,
            agree=lambda *wishes: (False, list(wishes)),
            leave=lambda waited: False,
        )
    if result is None:
        raise RuntimeError("nobody asked it to stop")
    found = Evaluation(
        file=file.name,
        epoch=header.epoch,
        step=header.step,
        val_loss=finite(result.loss),
        val_accuracy=finite(result.accuracy),
        val_mean_iou=finite(result.mean_iou),
        sha256=sha256,
        t=time.time(),
    )
    values: dict[str, object] = msgspec.to_builtins(found)
    return values


@lru_cache(maxsize=1)  # a process evaluates many checkpoints of one run
def _assembled(run_dir: str, submission: int, batch: int) -> tuple[TrainSpec, Assembly]:
    """With the batches that the training had: sums of others differ in their last bits."""
    plan = plan_part(RunPaths(Path(run_dir)).submission(submission).plan)
    spec = plan.spec.train
    if spec is None:
        raise ClustersegError("the job has `command:`, not `train:`", code="no-training")
    os.chdir(plan.directory)  # relative paths in job.yaml start there
    threads = _prepared()
    if spec.deterministic:
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    from clusterseg.train.assembly import assemble
    from clusterseg.train.batching import fresh
    from clusterseg.train.communicator.solo import SoloCommunicator

    # No step is trained here: the flags that ranks agree on in it are of no account.
    batching = fresh(msgspec.structs.replace(spec, batch_size=batch or spec.batch_size), 1)
    return spec, assemble(spec, SoloCommunicator(), flags=0, threads=threads, batching=batching)


@lru_cache(maxsize=1)  # TensorFlow's threads can be set once
def _prepared() -> int:
    """Gives TensorFlow the threads of a rank; returns their number."""
    from clusterseg.train.devices import prepare_tensorflow, rank_threads

    threads = rank_threads(os.environ, len(os.sched_getaffinity(0)))
    prepare_tensorflow(threads, deterministic=False)
    return threads


def plan_part(path: Path) -> PlanPart:
    """Reads plan.json; raises ClustersegError if it can't be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=PlanPart)
    except OSError as error:
        why = error.strerror or str(error)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        why = f"damaged ({error})"
    raise ClustersegError(f"{path} can't be read: {why}", code="bad-run", exit_code=ExitCode.FAILED)
