"""Lets a job go on that Slurm queued again and holds."""

from __future__ import annotations

from collections.abc import Mapping

from clusterseg.cluster.slurm.commands import Slurm, SlurmRefused
from clusterseg.cluster.slurm.queue import QueueCache
from clusterseg.errors import ClustersegError, ExitCode


def release(job_id: str, environ: Mapping[str, str], *, patience: float | None = None) -> None:
    """Releases one job, of an array one task; one that is not held is left as it is.

    `patience`: seconds for Slurm's answer. Raises ClustersegError.
    """
    slurm = Slurm(environ)
    try:
        slurm.release(job_id, patience=patience)
    except SlurmRefused as error:
        detail = slurm.show(job_id)
        if detail is not None and not detail.held:
            return  # somebody released it meanwhile
        raise ClustersegError(
            f"job {job_id} is in the queue, held, and is not released: {error.said}",
            code="not-released",
            help=f"`scontrol show job {job_id}` says who holds it; ask the cluster's staff",
            exit_code=ExitCode.CLUSTER,
        ) from None
    QueueCache(environ).outdate()  # it was seen held a moment ago
