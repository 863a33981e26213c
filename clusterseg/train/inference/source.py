"""Which trained network is meant: what a process of a fan-out is told of it. No TensorFlow."""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.runs.checkpoint_file import CheckpointError, read_layout
from clusterseg.runs.paths import RunPaths
from clusterseg.spec.model import JobSpec, TrainSpec
from clusterseg.train.evaluation import Chosen


class Source(Struct, frozen=True, kw_only=True):
    """The network of `train`, with the weights of a file; the job trains it on `accelerator`.

    `directory` is where relative paths of the job begin. `sha256` is that of a checkpoint, as it
    was when it was chosen; None for a file of weights from elsewhere.
    """

    train: TrainSpec
    accelerator: str = "none"
    directory: str
    weights: str
    sha256: str | None = None


class PlanPart(Struct):
    """What is needed of plan.json (`clusterseg.plan.model.Plan`)."""

    spec: JobSpec
    directory: str = "."


def of_checkpoint(run: RunPaths, chosen: Chosen) -> Source:
    """A checkpoint of a run, under the job.yaml that it was made under. Raises ClustersegError."""
    plan = read_plan(run.submission(chosen.submission).plan)
    return Source(
        train=training_of(plan.spec),
        accelerator=plan.spec.resources.accelerator,
        directory=plan.directory,
        weights=chosen.path,
        sha256=chosen.sha256,
    )


def of_weights(weights: Path, spec: JobSpec) -> Source:
    """A file of weights, of a network of `spec`; relative paths of it begin here.

    Raises ClustersegError: no such file, or a job that runs a program of its own.
    """
    weights = weights.absolute()
    if not weights.is_file():
        raise ClustersegError(f"{weights}: no such file", code="missing-file", help="name weights")
    try:
        sha256: str | None = read_layout(weights).sha256
    except CheckpointError:  # weights from elsewhere
        sha256 = None
    return Source(
        train=training_of(spec),
        accelerator=spec.resources.accelerator,
        directory=str(Path.cwd()),
        weights=str(weights),
        sha256=sha256,
    )


def training_of(spec: JobSpec) -> TrainSpec:
    """What it trains. Raises ClustersegError for a job that runs a program of its own."""
    if spec.train is None:
        raise ClustersegError("the job has `command:`, not `train:`", code="no-training")
    return spec.train


def read_plan(path: Path) -> PlanPart:
    """Raises ClustersegError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=PlanPart)
    except OSError as error:
        why = error.strerror or str(error)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        why = f"damaged ({error})"
    raise ClustersegError(f"{path} can't be read: {why}", code="bad-run", exit_code=ExitCode.FAILED)
