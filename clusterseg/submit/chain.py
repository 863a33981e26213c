"""`slurm.after`: the job of the run that has to end first."""

from __future__ import annotations

from pathlib import Path

from clusterseg.cluster.look import look
from clusterseg.errors import ClustersegError
from clusterseg.runs.snapshot import is_local_id
from clusterseg.runs.store import resolve_run


def job_to_wait_for(reference: str, root: Path) -> str:
    """The id of the job of the run `reference` below `root`; empty if that run is over.

    Raises ClustersegError for a run that is not there, not Slurm's, or not started.
    """
    run = resolve_run(reference, root)
    snapshot = look(run)
    if snapshot.verdict.over:
        return ""
    if snapshot.verdict.not_started or snapshot.job_id is None:
        raise ClustersegError(
            f"slurm.after: {run.run_id} was never started, or its job is held",
            code="after",
            help=f"clusterseg resume {run.run_id} starts it",
        )
    if is_local_id(snapshot.job_id):
        raise ClustersegError(
            f"slurm.after: {run.run_id} runs without Slurm ({snapshot.job_id})",
            code="after",
            help=f"clusterseg wait {run.run_id} && clusterseg submit ...",
        )
    return snapshot.job_id
