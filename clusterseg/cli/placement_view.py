"""The placement of an attempt as a small map: a host a line, its sockets, and each rank's cores."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from clusterseg.cli.output import safe
from clusterseg.plan.words import counted
from clusterseg.runs.placement import PlacedHost, PlacedRank, Placement
from clusterseg.runs.text import ranges

SHOWN_HOSTS = 8
SHOWN_RANKS = 16
_WIDTH = 100
_INDENT = "  "


def placement_lines(placement: Placement) -> list[str]:
    """The map with its legend; of many hosts or ranks those that are not as planned come first."""
    hosts = _chosen(placement.hosts)
    width = max(len(safe(host.host)) for host in hosts)
    lines = [_title(placement)]
    for host in hosts:
        lines += _host_lines(host, width)
    if hidden := len(placement.hosts) - len(hosts):
        shown = {host.host for host in hosts}
        ranks = sum(len(host.ranks) for host in placement.hosts if host.host not in shown)
        lines.append(f"{_INDENT}and {counted(hidden, 'more host')} with {counted(ranks, 'rank')}")
    return [*lines, *(f"{_INDENT}! {safe(problem)}" for problem in placement.problems)]


def _title(placement: Placement) -> str:
    words = {
        None: "not compared with the plan",
        True: "as planned",
        False: "NOT as planned, see !",
    }
    devices = any(rank.device for host in placement.hosts for rank in host.ranks)
    return (
        f"placement     {words[placement.as_planned]} "
        f"(s0: socket 0, then rank:cores{'@accelerators' if devices else ''})"
    )


def _chosen(hosts: Sequence[PlacedHost]) -> list[PlacedHost]:
    if len(hosts) <= SHOWN_HOSTS:
        return list(hosts)
    order = {id(host): number for number, host in enumerate(hosts)}
    first = sorted(hosts, key=lambda host: not any(map(_is_wrong, host.ranks)))[:SHOWN_HOSTS]
    return sorted(first, key=lambda host: order[id(host)])


def _host_lines(host: PlacedHost, width: int) -> list[str]:
    ranks = host.ranks
    if len(ranks) > SHOWN_RANKS:
        first = sorted(ranks, key=lambda rank: not _is_wrong(rank))[:SHOWN_RANKS]
        ranks = sorted(first, key=lambda rank: rank.rank)
    parts = _parts(ranks)
    if hidden := len(host.ranks) - len(ranks):
        parts.append(f"and {counted(hidden, 'more rank')}")
    head = f"{_INDENT}{safe(host.host).ljust(width)}  "
    blank = " " * len(head)
    if len(head) + len("   ".join(parts)) <= _WIDTH:
        return [head + "   ".join(parts)]
    lines: list[str] = []
    for part in parts:
        label = " " * (part.find(" ") + 1)
        lines += textwrap.wrap(
            part,
            _WIDTH,
            initial_indent=blank if lines else head,
            subsequent_indent=blank + label,
            break_long_words=False,
            break_on_hyphens=False,
        )
    return lines


def _parts(ranks: Sequence[PlacedRank]) -> list[str]:
    """Ranks by the sockets that they stand on: `s0 0:0-3 2:4-7`, `s1 1:16-19`.

    Ranks that say the same cores are one entry: `0-7:0-31`.
    """
    parts: dict[tuple[int, ...], dict[tuple[str, bool], list[int]]] = {}
    for rank in ranks:
        stands = _cores(rank) + (f"@{rank.device}" if rank.device else "")
        entries = parts.setdefault(tuple(rank.sockets), {})
        entries.setdefault((stands, _is_wrong(rank)), []).append(rank.rank)
    return [
        " ".join(
            [
                "+".join(f"s{socket}" for socket in sockets) or "s?",
                *(
                    f"{ranges(numbers, between=',')}:{safe(stands)}{'!' * wrong}"
                    for (stands, wrong), numbers in entries.items()
                ),
            ]
        )
        for sockets, entries in sorted(parts.items())
    ]


def _cores(rank: PlacedRank) -> str:
    """Each core by the first of its threads; the CPUs where a rank says no cores."""
    numbers = [core.rpartition(".")[2] for core in rank.cores]
    if numbers and all(number.isdecimal() for number in numbers):
        return ranges(map(int, numbers), between=",")
    return ranges(rank.cpus, between=",") or "?"


def _is_wrong(rank: PlacedRank) -> bool:
    return rank.as_planned is False
