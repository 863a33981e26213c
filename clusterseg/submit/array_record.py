"""array.json: what runs that were submitted together share. One of them, the leader, holds it."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.runs import files, store
from clusterseg.runs.paths import RunPaths, SubmissionPaths

_LARGEST = 16 << 20  # bytes


class ArrayRecord(Struct, frozen=True, kw_only=True):
    """`tasks`: the run id of each task. `throttle`: so many at a time; None: as many as fit.

    `options` are those of sbatch, without Slurm there are none.
    """

    name: str
    directory: str
    options: tuple[str, ...]
    tasks: dict[str, str]
    throttle: int | None = None

    def traces(self, leader: RunPaths) -> Traces:
        """What submitting the array, and its tasks, have left on the disk."""
        members = self.members(leader)
        ids = {(store.read_job_id(member) or "").partition("_")[0] for member, _ in members}
        return Traces(
            job_id=next(iter(ids)) if len(ids) == 1 else "",
            some_job_id=max(ids),
            touched=any(_is_touched(member, task, leader) for member, task in members),
        )

    def members(self, leader: RunPaths) -> list[tuple[SubmissionPaths, int]]:
        """The submission of each run, and its task."""
        return [
            (RunPaths(leader.root.with_name(run)).submission(0), int(task))
            for task, run in self.tasks.items()
        ]


class Traces(Struct, frozen=True):
    """`job_id`: the array's, if every run of it holds it, else empty; `some_job_id` where any does.

    An array is released only when all runs hold its id. `touched`: a task of it has begun, or a
    run has gone on without it.
    """

    job_id: str
    some_job_id: str
    touched: bool

    @property
    def spent(self) -> bool:
        """Whether a task may have begun: submitted again, the array would start it once more."""
        return self.touched or bool(self.job_id)


def _is_touched(member: SubmissionPaths, task: int, leader: RunPaths) -> bool:
    run = RunPaths(member.folder.parent.parent)
    output = leader.submission(0).array_output(str(task))  # made by Slurm as the task begins
    return (
        member.output.exists()
        or output.exists()
        or store.attempted(run)
        or len(store.iter_submissions(run)) > 1
    )


def read_array(leader: RunPaths) -> ArrayRecord:
    """Raises ClustersegError if it can't be read."""
    path = leader.submission(0).array_record
    try:
        return msgspec.json.decode(files.read_capped(path, _LARGEST), type=ArrayRecord)
    except OSError as error:
        problem = error.strerror or str(error)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        problem = f"damaged ({error})"
    raise ClustersegError(
        f"{path} can't be read: {problem}", code="bad-run", exit_code=ExitCode.FAILED
    )
