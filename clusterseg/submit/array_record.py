"""array.json: what runs that were submitted together share. One of them, the leader, holds it."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.runs import files
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

    def members(self, leader: RunPaths) -> list[tuple[SubmissionPaths, int]]:
        """The submission of each run, and its task."""
        return [
            (RunPaths(leader.root.with_name(run)).submission(0), int(task))
            for task, run in self.tasks.items()
        ]


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
