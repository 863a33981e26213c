"""A plan in words, for a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from clusterseg.plan.model import Plan, SlurmPlan
from clusterseg.plan.symbols import is_symbolic
from clusterseg.spec.errors import visible

_MOST_HOSTS = 8


def describe(plan: Plan) -> str:
    """Launcher, geometry and how it was solved, hosts and warnings; ends with a newline."""
    geometry = plan.geometry
    launcher = " ".join(filter(None, [plan.launcher, plan.launcher_version]))
    lines = [
        *([_slurm(plan.slurm)] if plan.slurm is not None else []),
        f"launcher: {launcher}{f' ({plan.mpirun})' if plan.mpirun else ''}"
        f"{f', because {plan.why}' if plan.why else ''}",
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
    if any(map(is_symbolic, hosts)):
        return f"{counted(len(hosts), 'node')} that Slurm chooses, {_shares(hosts.values())}"
    shown = [f"{name} ({counted(n, 'rank')})" for name, n in list(hosts.items())[:_MOST_HOSTS]]
    more = len(hosts) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _shares(counts: Iterable[int]) -> str:
    """`4 ranks on each`, or where they differ `4 ranks on 1 node, 3 ranks on 2 nodes`."""
    by_count = Counter(counts)
    if len(by_count) == 1:
        where = "on it" if by_count.total() == 1 else "on each"
        return f"{counted(next(iter(by_count)), 'rank')} {where}"
    return ", ".join(
        f"{counted(ranks, 'rank')} on {counted(nodes, 'node')}" for ranks, nodes in by_count.items()
    )


def counted(number: int, noun: str) -> str:
    """`1 rank`, `2 ranks`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
