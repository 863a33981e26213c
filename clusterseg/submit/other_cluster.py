"""A job in another cluster than the one that can be asked from here: nothing is known about it."""

from __future__ import annotations

from collections.abc import Mapping

from clusterseg.cluster.slurm.configuration import present_cluster
from clusterseg.errors import ClustersegError, ExitCode


def refuse_other_cluster(run: str, cluster: str | None, environ: Mapping[str, str]) -> None:
    """Raises ClustersegError if the job of a run is in `cluster`, and another one is asked here.

    Where either name is not known, they may be the same.
    """
    here = present_cluster(environ)
    if cluster is None or here is None or cluster == here:
        return
    raise ClustersegError(
        f"the job of {run} is in the cluster {cluster}; from here only {here} can be asked, which "
        "does not know whether it waits or runs",
        code="other-cluster",
        help=f"do it from a login node of {cluster}, or with SLURM_CONF set to the slurm.conf of "
        f"{cluster}; or submit the job as a new run here",
        exit_code=ExitCode.CLUSTER,
    )
