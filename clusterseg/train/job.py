"""What one rank is to do: read from the run directory, checked against its environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.runs.paths import AttemptPaths, RunPaths
from clusterseg.runs.rank_files import RankPlace, rank_from_environment
from clusterseg.runs.records import Claim
from clusterseg.spec.model import JobSpec, TrainSpec

_Kind = TypeVar("_Kind")


@dataclass(frozen=True)
class RankJob:
    """One rank of one attempt. `communicator` is what the plan chose: horovod, mpi or solo;
    `force` goes on from a checkpoint that differs where that makes sense."""

    paths: RunPaths
    attempt: AttemptPaths
    claim: Claim
    spec: JobSpec
    train: TrainSpec
    communicator: str
    place: RankPlace
    stop_file: Path
    force: bool = False


class _PlanPart(msgspec.Struct):
    """What a rank needs of plan.json (`clusterseg.plan.model.Plan`)."""

    communicator: str
    spec: JobSpec
    force: bool = False


def read_job(run_dir: Path, environ: Mapping[str, str]) -> RankJob:
    """Raises ClustersegError if this process is no rank of a claimed attempt of `run_dir`."""
    paths = RunPaths(run_dir.absolute())
    number = environ.get("CLUSTERSEG_ATTEMPT", "")
    if not (number.isascii() and number.isdigit()):
        raise _refusal(
            "`clusterseg train` runs one rank of an attempt, and CLUSTERSEG_ATTEMPT is not set",
            "use `clusterseg submit`; it starts the ranks through `clusterseg attempt`",
        )
    attempt = paths.attempt(int(number))
    claim = _read(attempt.claim, Claim)
    plan = _read(paths.submission(claim.submission).plan, _PlanPart)
    if plan.spec.train is None:
        raise _refusal("the job has `command:`, not `train:`", "pass its program after `--`")
    place = rank_from_environment(environ)
    if place.world_size != claim.ranks:
        raise ClustersegError(
            f"the launcher started {place.world_size} rank(s) (this one is {place.rank}), but "
            f"attempt {claim.attempt} was claimed for {claim.ranks}",
            code="world-size",
            help="start the ranks with the launch line that `clusterseg render` shows",
            exit_code=ExitCode.FAILED,
        )
    stop_file = environ.get("CLUSTERSEG_STOP_FILE")
    return RankJob(
        paths=paths,
        attempt=attempt,
        claim=claim,
        spec=plan.spec,
        train=plan.spec.train,
        communicator=plan.communicator,
        place=place,
        stop_file=Path(stop_file) if stop_file else paths.stop_file(claim.attempt),
        force=plan.force,
    )


def _read(path: Path, kind: type[_Kind]) -> _Kind:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise _refusal(f"{path} cannot be read: {error.strerror}", "is it a run?") from error
    except msgspec.DecodeError as error:
        raise _refusal(f"{path} is damaged: {error}", "submit the job anew") from error


def _refusal(message: str, help: str) -> ClustersegError:
    return ClustersegError(message, code="rank", help=help)
