"""The environment in which Slurm's programs are called. Pure.

A shell inside of a job carries that job's variables: sbatch would take them for options of the
new job (SLURM_CPU_BIND once pinned 8 ranks to 4 cores), and `SBATCH_NO_REQUEUE` beats the script's
own directive.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

# What a person sets in a profile for all of his jobs; Slurm itself never sets these in a job.
_OWN_DEFAULTS = frozenset(
    f"SBATCH_{name}" for name in ("ACCOUNT", "PARTITION", "QOS", "RESERVATION", "CONSTRAINT")
)
# Where the cluster is: without SLURM_CONF its programs may find another one, or none.
_WHERE = frozenset({"SLURM_CONF", "SLURM_CLUSTERS"})
_LEAKED = (
    *("SLURM_*", "SLURMD_*", "SBATCH_*", "SALLOC_*", "SRUN_*", "SQUEUE_*", "SACCT_*", "SCONTROL_*"),
    *("SLURM_TIME_FORMAT", "PMI_*", "PMIX_*", "HYDI_*", "OMPI_COMM_WORLD_*", "OMPI_MCA_ess*"),
    *("PRTE_LAUNCHED", "PRTE_MCA_ess*"),
)


def scrubbed(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` without what an outer job or its MPI left in it."""
    return {
        name: value
        for name, value in environ.items()
        if name in _WHERE
        or name in _OWN_DEFAULTS
        or not any(fnmatchcase(name, pattern) for pattern in _LEAKED)
    }
