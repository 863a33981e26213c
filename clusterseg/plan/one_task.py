"""What Slurm is asked for a job of one rank's work beside a run: where and as long as the run."""

from __future__ import annotations

from clusterseg.plan.model import Plan
from clusterseg.plan.script import quote

# Of the run's options those that say who pays, where it may run, and for how long.
_INHERITED = (
    "account", "clusters", "constraint", "exclude", "partition", "qos", "reservation", "time",
)  # fmt: skip
_ACCELERATORS = ("gres", "gpus-per-node", "gpus-per-task")
_MEGABYTE = 1 << 20


def one_task_options(plan: Plan) -> dict[str, str]:
    """Options of sbatch by long name: those of the run, with the cores and the share of a node's
    memory that one of its ranks has, and one accelerator if they have any."""
    inherited = _of_job_yaml(plan)
    if plan.slurm is not None:
        words = [word.removeprefix("--").partition("=") for word in plan.slurm.options]
        inherited |= {name: value for name, _, value in words if name in _INHERITED}
        if plan.spec.resources.accelerator != "none":
            inherited |= {
                "gres" if name == "gres" else "gpus-per-node": _one_of(value)
                for name, _, value in words
                if name in _ACCELERATORS
            }
    memory = plan.spec.resources.memory
    if memory is not None:
        share = -(-memory // max(plan.geometry.hosts.values()))
        inherited["mem"] = f"{-(-share // _MEGABYTE)}M"
    return {**inherited, "cpus-per-task": str(plan.threads)}


def _one_of(value: str) -> str:
    """`gpu:a100:4`: `gpu:a100:1`."""
    return f"{value.rpartition(':')[0]}:1".removeprefix(":")


def one_task_setup(plan: Plan) -> list[str]:
    """Lines of bash that make the run's environment, to stand before the work."""
    own, site = plan.spec.environment, plan.slurm
    modules = (*(site.modules if site else ()), *own.modules)
    return [
        "set -e",
        *(f"export {name}={quote(value)}" for name, value in own.variables.items()),
        f"export OMP_NUM_THREADS={plan.threads}",
        *(f"module load {quote(name)}" for name in modules),
        *(line.rstrip("\n") for line in (*(site.setup if site else ()), *own.setup)),
    ]


def _of_job_yaml(plan: Plan) -> dict[str, str]:
    wanted = plan.spec.slurm
    options = {
        "account": wanted.account,
        "constraint": wanted.constraint,
        "partition": wanted.partition,
        "qos": wanted.qos,
        "time": None if plan.time_limit is None else str(-(-plan.time_limit // 60)),  # minutes
    }
    return {name: value for name, value in options.items() if value is not None}
