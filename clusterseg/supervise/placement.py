"""Compares what the ranks report about themselves with the plan. Pure.

What was asked is not what happens: a launcher may start singletons, run everything on one host,
or bind two ranks to the same cores, and report success.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from clusterseg.plan.model import Plan
from clusterseg.runs.records import RankStart

_SHOWN = 8


@dataclass(frozen=True)
class Findings:
    """`wrong`: the ranks are not one job of the planned size. `doubtful`: not where planned."""

    wrong: tuple[str, ...] = ()
    doubtful: tuple[str, ...] = ()


def check_placement(plan: Plan, starts: Sequence[RankStart]) -> Findings:
    """What differs from the plan, once every rank (or every one that will) has started."""
    doubtful = _hosts(plan, starts)
    if plan.spec.placement.bind_to != "none" and not plan.geometry.oversubscribed:
        doubtful += [*_fewer_cores(plan, starts), *_shared_cores(starts)]
    if len(doubtful) > _SHOWN:
        doubtful = [*doubtful[:_SHOWN], f"and {len(doubtful) - _SHOWN} more"]
    return Findings(tuple(_world(plan, starts)), tuple(doubtful))


def _world(plan: Plan, starts: Sequence[RankStart]) -> list[str]:
    sizes = Counter(start.world_size for start in starts)
    return [
        f"{count} of {len(starts)} ranks see a world of {size}, the plan has {plan.ranks} ranks"
        for size, count in sorted(sizes.items())
        if size != plan.ranks
    ]


def _hosts(plan: Plan, starts: Sequence[RankStart]) -> list[str]:
    if len(starts) != plan.ranks:
        return []
    found = Counter(_short(start.host) for start in starts)
    symbolic = any("{" in host for host in plan.hosts) or list(plan.hosts) == ["localhost"]
    if symbolic:
        if sorted(found.values()) == sorted(plan.hosts.values()):
            return []
    elif found == Counter({_short(host): count for host, count in plan.hosts.items()}):
        return []
    planned = ", ".join(f"{host}: {count}" for host, count in plan.hosts.items())
    actual = ", ".join(f"{host}: {count}" for host, count in sorted(found.items()))
    return [f"the ranks run on {{{actual}}}, the plan says {{{planned}}}"]


def _fewer_cores(plan: Plan, starts: Sequence[RankStart]) -> list[str]:
    cores = plan.geometry.cpus_per_rank
    return [
        f"rank {start.rank} on {start.host} has {len(start.cpus)} processors, "
        f"{cores} cores were planned"
        for start in starts
        if start.cpus and len(start.cpus) < cores
    ]


def _shared_cores(starts: Sequence[RankStart]) -> list[str]:
    by_host: dict[str, list[RankStart]] = {}
    for start in starts:
        by_host.setdefault(start.host, []).append(start)
    said = []
    for host, ranks in by_host.items():
        for one, other in combinations(ranks, 2):
            shared = sorted(set(one.cpus) & set(other.cpus))
            if shared:
                listed = ", ".join(map(str, shared[:_SHOWN])) + (", …" * (len(shared) > _SHOWN))
                said.append(
                    f"ranks {one.rank} and {other.rank} on {host} share processors {listed}"
                )
    return said


def _short(host: str) -> str:
    return host.split(".", maxsplit=1)[0].lower()
