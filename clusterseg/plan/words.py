"""A plan in words, for a person."""

from __future__ import annotations

from clusterseg.plan.model import Plan, SlurmPlan
from clusterseg.spec.errors import visible

_MOST_HOSTS = 8


def describe(plan: Plan) -> str:
    """Launcher, geometry and how it was solved, hosts and warnings; ends with a newline."""
    geometry = plan.geometry
    launcher = " ".join(filter(None, [plan.launcher, plan.launcher_version]))
    lines = [
        *([_slurm(plan.slurm)] if plan.slurm is not None else []),
        f"launcher: {launcher}{f' ({plan.mpirun})' if plan.mpirun else ''}",
        *([f"communicator: {plan.communicator}"] if plan.spec.train is not None else []),
        f"hosts: {_hosts(plan.hosts)}",
        "geometry:",
        *(f"  {line}" for line in geometry.explanation),
        *(f"warning: {warning}" for warning in plan.warnings),
    ]
    return "".join(visible(line) + "\n" for line in lines)


def _slurm(slurm: SlurmPlan) -> str:
    where = f", partition {slurm.partition}" if slurm.partition is not None else ""
    return f"scheduler: slurm, site {slurm.site}{where}"


def _hosts(hosts: dict[str, int]) -> str:
    shown = [
        f"{name} ({count} rank{'s' * (count != 1)})"
        for name, count in list(hosts.items())[:_MOST_HOSTS]
    ]
    more = len(hosts) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
