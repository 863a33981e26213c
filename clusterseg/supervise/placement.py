"""Compares what the ranks report about themselves with the plan. Pure, and linear in ranks.

What was asked is not what happens: a launcher may start singletons, run everything on one host,
bind two ranks to the same cores or to cores of another job, and report success.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from clusterseg.plan.devices import DEVICES
from clusterseg.plan.model import Plan
from clusterseg.plan.words import counted
from clusterseg.runs.records import RankStart
from clusterseg.supervise.cores import (
    Finding,
    Ground,
    across,
    by_host,
    crowded,
    fewer,
    outside,
    shared,
    shared_devices,
    short_name,
)

_SHOWN = 4  # findings of one kind that are written out
_SHOWN_HOSTS = 8


@dataclass(frozen=True)
class Findings:
    """`wrong`: the ranks are not one job of the planned size. `doubtful`: not where planned.

    `ranks` are those that are not as planned, in order.
    """

    wrong: tuple[str, ...] = ()
    doubtful: tuple[str, ...] = ()
    ranks: tuple[int, ...] = ()


def check_world(plan: Plan, starts: Iterable[RankStart]) -> Findings:
    """Whether the ranks that have started, be it only some, see a world of the planned size."""
    starts = list(starts)
    sizes = Counter(start.world_size for start in starts)
    wrong = tuple(
        f"{count} of {counted(len(starts), 'rank')} {'sees' if count == 1 else 'see'} "
        f"a world of {size}, the plan has {counted(plan.ranks, 'rank')}"
        for size, count in sorted(sizes.items())
        if size != plan.ranks
    )
    ranks = tuple(start.rank for start in starts if start.world_size != plan.ranks)
    return Findings(wrong, (), ranks)


def check_placement(
    plan: Plan, starts: Sequence[RankStart], *, ground: Ground | None = None
) -> Findings:
    """What differs from the plan, once every rank (or every one that will) has started.

    The keys of `ground` are host names, short or long.
    """
    world = check_world(plan, starts)
    kinds = {"hosts have other ranks than planned": _hosts(plan, starts)}
    bind_to = plan.spec.placement.bind_to
    if bind_to != "none" and not plan.geometry.oversubscribed:
        hosts = by_host(starts, ground or {})
        cpus = plan.geometry.cpus_per_rank
        kinds |= {
            "ranks run outside of what this job may use": outside(hosts),
            "ranks have fewer cores than planned": fewer(hosts, cpus),
            "ranks are spread over too much": []
            if plan.geometry.whole_hosts
            else across(hosts, cpus, numa=bind_to == "numa"),
            "groups of ranks share cores": shared(hosts)
            if bind_to == "core"
            else crowded(hosts, cpus),
        }
    if ":" in plan.environment.get(DEVICES, ""):  # dealt out by us, by local rank
        kinds["groups of ranks share accelerators"] = shared_devices(starts)
    doubtful: list[str] = []
    ranks = set(world.ranks)
    for kind, found in kinds.items():
        doubtful += [one.text for one in found[:_SHOWN]]
        if len(found) > _SHOWN:
            doubtful.append(f"and {len(found) - _SHOWN} more {kind}")
        ranks.update(rank for one in found for rank in one.ranks)
    return Findings(world.wrong, tuple(doubtful), tuple(sorted(ranks)))


def _hosts(plan: Plan, starts: Sequence[RankStart]) -> list[Finding]:
    if len(starts) != plan.ranks:
        return []
    found = Counter(short_name(start.host) for start in starts)
    planned: Counter[str] = Counter()
    unnamed: list[int] = []  # ranks of hosts that were planned without the name that they have
    for host, count in plan.hosts.items():
        if _is_name(host):
            planned[short_name(host)] += count
        else:
            unnamed.append(count)
    others = sorted(count for host, count in found.items() if host not in planned)
    if others == sorted(unnamed) and all(found[host] == count for host, count in planned.items()):
        return []
    wrong = {host for host in found if unnamed or found[host] != planned[host]}
    # Of many hosts, those that differ.
    few = max(len(found), len(plan.hosts)) <= _SHOWN_HOSTS
    runs = {host: count for host, count in found.items() if few or host in wrong}
    asked = {
        host: count
        for host, count in plan.hosts.items()
        if few or not _is_name(host) or found[short_name(host)] != planned[short_name(host)]
    }
    text = f"the ranks run on {_listed(runs)}, the plan says {_listed(asked)}"
    return [Finding(text, tuple(one.rank for one in starts if short_name(one.host) in wrong))]


def _is_name(host: str) -> bool:
    """Whether a host of a plan is called what it calls itself."""
    if "{" in host or host == "localhost":
        return False
    try:
        ip_address(host)
    except ValueError:
        return True
    return False


def _listed(hosts: Mapping[str, int]) -> str:
    shown = [f"{host}: {count}" for host, count in sorted(hosts.items())[:_SHOWN_HOSTS]]
    more = [f"and {len(hosts) - _SHOWN_HOSTS} more"] if len(hosts) > _SHOWN_HOSTS else []
    return f"{{{', '.join([*shown, *more])}}}"
