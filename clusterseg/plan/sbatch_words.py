"""Which options of sbatch clusterseg sets itself, so that nobody else may. Pure."""

from __future__ import annotations

# Options that clusterseg sets itself, and what to use instead of them in `slurm.extra`.
_OWN = {
    **dict.fromkeys(("nodes", "ntasks", "ntasks-per-node", "cpus-per-task"), "resources"),
    **dict.fromkeys(("tasks", "tasks-per-node"), "resources"),  # sbatch knows both spellings
    "mem": "resources.memory",
    "time": "resources.time",
    "nodelist": "resources.hosts",
    "distribution": "placement.map_by",
    "overcommit": "placement.oversubscribe",
    **{name: f"slurm.{name}" for name in ("partition", "account", "qos", "constraint", "array")},
    "dependency": "slurm.after",
    "requeue": "restart",
    "no-requeue": "restart",
    "job-name": "name",
    **dict.fromkeys(
        (
            *("comment", "output", "error", "input", "open-mode", "chdir", "export", "signal"),
            *("hold", "parsable", "wrap", "wait", "test-only", "clusters", "uid", "gid"),
            *("help", "usage", "version"),
        ),
        "clusterseg itself",
    ),
}


def set_by_key(option: str) -> str | None:
    """The key of job.yaml that sets an option, or None for one that may be added.

    Slurm takes any beginning of a name that is not ambiguous, so a beginning counts too.
    """
    name = option.partition("=")[0].removeprefix("--")
    return next((key for own, key in _OWN.items() if own.startswith(name)), None)
