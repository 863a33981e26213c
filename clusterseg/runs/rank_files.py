"""One rank's place in the world and its output file: what a rank does before anything else.

Used by the trainer and by the wrapper that starts the ranks of `command:` jobs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from msgspec import Struct

from clusterseg.errors import ClustersegError
from clusterseg.runs.files import FILE_MODE

# What launchers tell their ranks: (rank, world size, local rank). The order matters: a rank of
# mpirun in a Slurm job sees Slurm's variables too, and they are those of the batch step.
_LAUNCHERS = (
    # `clusterseg ranks`, which may be a step of Slurm or a rank of an MPI itself.
    ("CLUSTERSEG_RANK", "CLUSTERSEG_WORLD_SIZE", "CLUSTERSEG_LOCAL_RANK"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),  # Hydra: MPICH, Intel MPI
    ("PMIX_RANK", "SLURM_NTASKS", "SLURM_LOCALID"),  # srun --mpi=pmix
    ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),  # srun
)


class RankPlace(Struct, frozen=True, kw_only=True):
    """Rank and local rank (on its host), both from 0, and how many ranks the launcher started."""

    rank: int
    world_size: int
    local_rank: int


@dataclass(frozen=True)
class RankDevices:
    """The accelerators of a rank: their kind, what they are called, what it has to be told."""

    kind: str | None = None
    device: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)


def rank_from_environment(environ: Mapping[str, str]) -> RankPlace:
    """The place that the launcher gave this process; without a launcher rank 0 of 1.

    Raises ClustersegError if the variables contradict each other.
    """
    for rank_name, size_name, local_name in _LAUNCHERS:
        if rank_name not in environ:
            continue
        rank = _number(environ, rank_name, None)
        # srun's pmi2 sets no local rank by Hydra's name.
        local = _number(environ, local_name, _number(environ, "SLURM_LOCALID", 0))
        size = _number(environ, size_name, _number(environ, "SLURM_NTASKS", 1))
        if rank >= size:
            raise ClustersegError(
                f"{rank_name}={rank} does not fit {size_name}={size}",
                code="rank-environment",
                help="start ranks with the launch line that `clusterseg render` shows",
            )
        return RankPlace(rank=rank, world_size=size, local_rank=local)
    return RankPlace(rank=0, world_size=1, local_rank=0)


def redirect_output(log: Path) -> None:
    """Sends this process's stdout and stderr (descriptors 1 and 2) to the end of `log` (0600).

    One file a rank: launchers that merge the ranks' output mix their lines under load.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(log, flags, FILE_MODE)
    try:
        os.fchmod(descriptor, FILE_MODE)
        for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
            if stream is not None:
                stream.flush()
            os.dup2(descriptor, number)  # inherited by whatever is executed next
    finally:
        os.close(descriptor)


def _number(environ: Mapping[str, str], name: str, default: int | None) -> int:
    text = environ.get(name)
    if text is None and default is not None:
        return default
    if text is None or not text.isascii() or not text.isdigit():
        raise ClustersegError(
            f"{name}={text!r} is not a number that a launcher sets", code="rank-environment"
        )
    return int(text)
