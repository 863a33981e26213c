"""A key kept in a job that runs already, where a requeue of it finds the key again."""

from __future__ import annotations

from typing import Protocol

from clusterseg.cluster.slurm.commands import SlurmError
from clusterseg.cluster.slurm.jobs import JobDetail, job_comment, job_name


class Keeper(Protocol):
    """What is asked of Slurm (`clusterseg.cluster.slurm.commands.Slurm`)."""

    def show(self, job_id: str) -> JobDetail | None: ...
    def update(self, job_id: str, *settings: str) -> None: ...


def keep_key(job_id: str, name: str, key: str, slurm: Keeper) -> bool:
    """Writes the key into the job's comment, or, where something else stands there, the name.

    `name` is the run's. May be repeated. False: Slurm does not keep it now.
    """
    try:
        detail = slurm.show(job_id)
        if detail is None:
            return False
        if detail.comment in ("", "(null)"):
            slurm.update(job_id, f"Comment={job_comment(key)}")
        elif detail.comment != job_comment(key):
            slurm.update(job_id, f"JobName={job_name(name, key)}")
    except SlurmError:
        return False
    return True
