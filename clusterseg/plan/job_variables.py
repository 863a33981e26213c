"""Which `SLURM_*` variables a batch script may believe: those that Slurm set for its own job. Pure.

sbatch hands on the whole environment that it was called in, and so what another job left there.
What Slurm sets for every job takes the place of that; what it sets only for a job with some option
does not, and srun reads most of it as options of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from clusterseg.plan.sbatch_words import set_by_key

# Set for every job (manual of sbatch, OUTPUT ENVIRONMENT VARIABLES, 22.05 to 25.11; measured on
# 22.05). With them what requeues and arrays add, and the variables that say where the cluster is.
_ALWAYS = (
    *("CLUSTER_NAME", "CPUS_ON_NODE", "GTIDS", "JOBID", "JOB_ACCOUNT", "JOB_CPUS_PER_NODE"),
    *("JOB_END_TIME", "JOB_GID", "JOB_GROUP", "JOB_ID", "JOB_NAME", "JOB_NODELIST"),
    *("JOB_NUM_NODES", "JOB_PARTITION", "JOB_QOS", "JOB_START_TIME", "JOB_UID", "JOB_USER"),
    *("NNODES", "NODEID", "NODELIST", "NODE_ALIASES", "NPROCS", "NTASKS", "OOM_KILL_STEP"),
    *("PRIO_PROCESS", "SUBMIT_DIR", "SUBMIT_HOST", "TASKS_PER_NODE", "TASK_PID"),
    *("TOPOLOGY_ADDR*", "WORKING_CLUSTER", "STEPMGR", "RESTART_COUNT", "ARRAY_*"),
    *("CONF", "CONF_SERVER", "CLUSTERS", "JWT", "SACK_*"),
    *("*TMPDIR", "*SCRATCH*"),  # a site's own: the scratch of the job, made by its prolog
)
_GPUS = ("GPUS_ON_NODE", "JOB_GPUS")
# By option of sbatch the variables that say it again; what is not here is spelt as the option.
_BY_OPTION: dict[str, tuple[str, ...]] = {
    "cpu-freq": ("CPU_FREQ_REQ",),
    "cpus-per-gpu": ("CPUS_PER_GPU",),
    "cpus-per-task": ("CPUS_PER_TASK",),
    "dependency": ("JOB_DEPENDENCY",),
    "exclusive": ("EXCLUSIVE", *_GPUS),
    "gpu-bind": ("GPU_BIND",),
    "gpu-freq": ("GPU_FREQ",),
    "gpus": ("GPUS", *_GPUS),
    "gpus-per-node": ("GPUS_PER_NODE", *_GPUS),
    "gpus-per-socket": ("GPUS_PER_SOCKET", *_GPUS),
    "gpus-per-task": ("GPUS_PER_TASK", *_GPUS),
    "gres": ("SHARDS_ON_NODE", *_GPUS),
    "gres-flags": ("GRES_FLAGS",),
    "hint": ("HINT",),
    "licenses": ("JOB_LICENSES",),
    "mem": ("MEM_PER_NODE",),
    "mem-bind": (),
    "mem-per-cpu": ("MEM_PER_CPU",),
    "mem-per-gpu": ("MEM_PER_GPU",),
    "ntasks-per-core": ("NTASKS_PER_CORE",),
    "ntasks-per-gpu": ("NTASKS_PER_GPU",),
    "ntasks-per-node": ("NTASKS_PER_NODE",),
    "ntasks-per-socket": ("NTASKS_PER_SOCKET",),
    "reservation": ("JOB_RESERVATION", "RESERVATION"),
    "segment": ("JOB_SEGMENT_SIZE",),
    "switches": ("REQ_SWITCH", "WAIT4SWITCH"),
    "threads-per-core": ("THREADS_PER_CORE",),
    "tres-per-task": ("TRES_PER_TASK", *_GPUS),
}


def own_variables(options: Sequence[str]) -> tuple[str, ...]:
    """Patterns of the `SLURM_*` variables that Slurm sets for a job with these options."""
    names = [*_ALWAYS]
    for option in options:
        names += _said_by(option.partition("=")[0].removeprefix("--"))
    return tuple(f"SLURM_{name}" for name in dict.fromkeys(names))


def _said_by(option: str) -> Sequence[str]:
    if option in _BY_OPTION:
        return _BY_OPTION[option]
    if set_by_key(f"--{option}") is not None:
        return ()  # srun is told it on the launch line, or has no use for it
    # Slurm takes any beginning of a name that is not ambiguous.
    meant = [names for name, names in _BY_OPTION.items() if name.startswith(option)]
    return meant[0] if len(meant) == 1 else (option.replace("-", "_").upper(),)
