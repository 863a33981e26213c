"""How the way to a job in Slurm's queue can end badly, for the person who can mend it."""

from __future__ import annotations

from clusterseg.errors import ClustersegError, ExitCode


def not_released(job_id: str, said: str) -> ClustersegError:
    return ClustersegError(
        f"job {job_id} is in the queue, but is not released: {said}",
        code="not-released",
        help=f"scontrol release {job_id}; or ask the cluster's staff",
        exit_code=ExitCode.CLUSTER,
    )


def never_shown(times: int) -> ClustersegError:
    return ClustersegError(
        f"sbatch acknowledged {times} jobs, and the queue shows none of them",
        code="jobs-lost",
        help="jobs that appear later stay held; `squeue --me` shows them",
        exit_code=ExitCode.CLUSTER,
    )


class Outdated(ClustersegError):
    """The run has gone on without this client."""

    def __init__(self, cancelled: str | None) -> None:
        """`cancelled`: the job that was held for this client's submission."""
        job = f"; job {cancelled}, which was held for it, is cancelled" if cancelled else ""
        super().__init__(
            "the run was resumed by a newer submission meanwhile (or removed): nothing is started "
            f"for this one{job}",
            code="outdated",
            exit_code=ExitCode.FAILED,
        )


class JobGone(ClustersegError):
    """Nothing of the submission is in the queue, and it is not submitted again."""

    def __init__(self) -> None:
        super().__init__(
            "its job is not in the queue any more, and may have been released before: it is not "
            "submitted again",
            code="job-gone",
            exit_code=ExitCode.FAILED,
        )
