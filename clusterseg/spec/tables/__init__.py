"""The names a job.yaml may hold: models, losses, optimizers, ..., each with its options.

A name that is known and not `ready` is read like any other and refused by the planner
(`clusterseg.spec.pending`). Options are described as struct fields, so that the reader and the
JSON Schema treat them like the other keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from clusterseg.spec.tables.data import AUGMENTATIONS, DATA_FORMATS
from clusterseg.spec.tables.known import Known, Table
from clusterseg.spec.tables.models import MODELS
from clusterseg.spec.tables.training import LOSSES, OPTIMIZERS, SCHEDULES

__all__ = [
    "AUGMENTATIONS",
    "DATA_FORMATS",
    "LAUNCHERS",
    "LOSSES",
    "MODELS",
    "OPTIMIZERS",
    "SCHEDULES",
    "TABLES",
    "Known",
    "Table",
]

LAUNCHERS: Table = MappingProxyType(
    {
        "auto": Known("what this machine has", ready=True),
        "openmpi4": Known("mpirun of Open MPI 4", ready=True),
        "openmpi5": Known("mpirun of Open MPI 5", ready=True),
        "mpich": Known("mpiexec of MPICH (Hydra)", ready=True),
        "intelmpi": Known("mpiexec of Intel MPI (Hydra)", ready=True),
        "spectrum": Known("mpirun of IBM Spectrum MPI, untested", ready=True),
        "srun": Known("srun of Slurm", ready=True),
        "horovodrun": Known("horovodrun, which calls an mpirun", ready=True),
        "local": Known("plain processes on this machine", ready=True),
    }
)

TABLES: Mapping[str, Table] = MappingProxyType(
    {
        "models": MODELS,
        "losses": LOSSES,
        "optimizers": OPTIMIZERS,
        "schedules": SCHEDULES,
        "data_formats": DATA_FORMATS,
        "augmentations": AUGMENTATIONS,
        "launchers": LAUNCHERS,
    }
)
