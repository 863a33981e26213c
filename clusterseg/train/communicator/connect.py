"""Connects a rank to the others, and makes sure that they are as many as was planned."""

from __future__ import annotations

import os

from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.runs.rank_files import RankPlace
from clusterseg.train.communicator.base import Communicator
from clusterseg.train.communicator.solo import SoloCommunicator


def connect(name: str, place: RankPlace, ranks: int) -> Communicator:
    """The communicator `name` (horovod, mpi, solo) over `ranks` ranks.

    `place` is what the launcher said. Raises ClustersegError if the library is missing, or the
    ranks do not see each other: a rank on another libmpi than its mpirun's becomes a singleton
    that would train alone.
    """
    communicator = _create(name, place)
    found = (communicator.rank, communicator.size)
    if communicator.size != ranks or (ranks > 1 and found != (place.rank, place.world_size)):
        raise ClustersegError(
            f"this rank is {communicator.rank} of {communicator.size} for {name}, "
            f"{place.rank} of {place.world_size} for the launcher, and the attempt was claimed "
            f"for {ranks} ranks",
            code="world-size",
            help="ranks must load the libmpi that belongs to the mpirun that starts them "
            "(MPI4PY_LIBMPI); start them with the launch line that `clusterseg render` shows",
            exit_code=ExitCode.FAILED,
        )
    return communicator


def _create(name: str, place: RankPlace) -> Communicator:
    if name == "solo":
        return SoloCommunicator()
    # By Open MPI's default a rank that waits spins, against its own threads that read pictures, and
    # Horovod's thread spins against computing: with one core a rank Horovod's steps then take 1.3
    # times as long or more (measured). Read when MPI is loaded; a job may set another value.
    os.environ.setdefault("OMPI_MCA_mpi_yield_when_idle", "1")
    try:
        if name == "mpi":
            from clusterseg.train.communicator.mpi import MpiCommunicator

            return MpiCommunicator(place.local_rank)
        if name == "horovod":
            from clusterseg.train.communicator.horovod import HorovodCommunicator

            return HorovodCommunicator(place.local_rank)
    except (ImportError, RuntimeError) as error:
        raise ClustersegError(
            f"the communicator {name} cannot be loaded: {error}",
            code="communicator",
            help="set train.communicator: mpi, or repair the installation (make setup)",
            exit_code=ExitCode.FAILED,
        ) from error
    raise ClustersegError(f"unknown communicator {name!r}", code="communicator")
