"""How many ranks stand on which host, with how many cores each: solved from what is given.

Any sufficient subset of `nodes`, `ranks`, `ranks_per_node`, `hosts` and `cpus_per_rank` will do;
a contradiction is refused with the equation that fails. Nothing given is one rank on one node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from heapq import heapify, heapreplace

from msgspec.structs import replace

from clusterseg.plan.cores import (
    cpus_per_rank,
    have_whole_hosts,
    lack,
    part_name,
    refusal,
    room_for,
    way_out,
)
from clusterseg.plan.model import Geometry, Host
from clusterseg.plan.symbols import shown_host, shown_hosts
from clusterseg.plan.words import counted
from clusterseg.spec.model import PlacementSpec, ResourcesSpec

_SHOWN = 4  # hosts whose equations stand in an explanation


def solve(resources: ResourcesSpec, hosts: Sequence[Host], placement: PlacementSpec) -> Geometry:
    """The geometry that `resources` asks for on `hosts`, the hosts that can be had, in order.

    Hosts that `resources.hosts` names need not be among `hosts`; their cores are then unknown.
    Raises ClustersegError (`geometry`) for a contradiction, too few hosts or too few cores, or
    cores that no socket has for a rank that is to be bound there (`placement`).
    """
    lines: list[str] = []
    if resources.hosts is not None:
        known = {host.name: host for host in hosts}
        used = [known.get(name) or Host(name=name, cores=None) for name in resources.hosts]
        if any(resources.hosts.values()):
            counts = _named_counts(resources, resources.hosts, lines)
        else:
            counts = _counts_on_named(resources, used, placement, lines)
    else:
        counts = _counts(resources, hosts, placement, lines)
        used = list(hosts[: len(counts)])
    cpus = cpus_per_rank(resources, used, counts, placement, lines)
    whole = have_whole_hosts(used, counts, cpus, placement)
    if whole:
        lines.append("one rank a host: it has the whole host, the cores of all sockets")
    lacking = [
        lack(host, count, cpus, placement, whole) for host, count in zip(used, counts, strict=True)
    ]
    oversubscribed = any(lacking)
    if oversubscribed and not placement.oversubscribe:
        raise refusal(next(filter(None, lacking)), help=way_out(used, counts, cpus, placement))
    return Geometry(
        nodes=len(counts),
        ranks=sum(counts),
        ranks_per_node=counts[0] if len(set(counts)) == 1 else None,
        cpus_per_rank=cpus,
        hosts={host.name: count for host, count in zip(used, counts, strict=True)},
        explanation=tuple(lines),
        oversubscribed=oversubscribed,
        whole_hosts=whole,
    )


def _named_counts(
    resources: ResourcesSpec, given: Mapping[str, int | None], lines: list[str]
) -> list[int]:
    """Ranks a host where `hosts` gives them; the other keys may only agree."""
    counts = [count for count in given.values() if count is not None]
    if len(counts) < len(given):
        without = next(host for host, count in given.items() if count is None)
        raise refusal(
            f"hosts gives no ranks for {without}, but for others",
            help="give a number for every host, or for none",
        )
    nodes, ranks = len(counts), sum(counts)
    if resources.nodes not in (None, nodes):
        raise refusal(f"hosts names {nodes}, but nodes = {resources.nodes}")
    if resources.ranks not in (None, ranks):
        only = f"hosts gives {next(iter(given))} {counted(ranks, 'rank')}"
        what = only if nodes == 1 else f"{_sum_of(counts)} = {ranks}"
        raise refusal(f"{what}, but ranks = {resources.ranks}")
    for host, count in given.items():
        if resources.ranks_per_node not in (None, count):
            raise refusal(
                f"hosts gives {host} {count}, but ranks_per_node = {resources.ranks_per_node}"
            )
    lines.append(f"nodes = {nodes}: the hosts named")
    lines.append(
        f"ranks = {ranks}: given" if nodes == 1 else f"ranks = {_sum_of(counts)} = {ranks}"
    )
    return counts


def _counts_on_named(
    resources: ResourcesSpec, hosts: Sequence[Host], placement: PlacementSpec, lines: list[str]
) -> list[int]:
    """Ranks a host where `hosts` has no numbers: all of them are used, as the other keys say."""
    if not hosts:
        raise refusal("hosts names no host", help="name hosts with their ranks, or leave it out")
    if resources.nodes not in (None, len(hosts)):
        raise refusal(f"hosts names {len(hosts)}, but nodes = {resources.nodes}")
    lines.append(f"nodes = {len(hosts)}: the hosts named")
    found: list[str] = []
    counts = _counts(replace(resources, nodes=len(hosts)), hosts, placement, found)
    lines += [line for line in found if not line.startswith("nodes = ")]
    return counts


def _counts(
    resources: ResourcesSpec, hosts: Sequence[Host], placement: PlacementSpec, lines: list[str]
) -> list[int]:
    """Ranks a host, solved from nodes, ranks, ranks_per_node (and cores ÷ cpus_per_rank)."""
    nodes, ranks, per_node = resources.nodes, resources.ranks, resources.ranks_per_node
    if nodes is not None:
        lines.append(f"nodes = {nodes}: given")
    if per_node is not None:
        return _equal_counts(nodes, per_node, ranks, hosts, lines)
    cpus = 1 if resources.cpus_per_rank == "auto" else resources.cpus_per_rank
    if ranks is not None:
        if nodes is None:
            nodes = _fewest_nodes(ranks, cpus, hosts, placement)
            lines.append(f"nodes = {nodes}: the fewest that hold {ranks} ranks")
        _require_hosts(nodes, hosts)
        if ranks < nodes:
            raise refusal(f"ranks = {ranks}, but nodes = {nodes}: a node would have no rank")
        counts = _spread(ranks, cpus, hosts[:nodes], placement)
        lines.append(f"ranks = {ranks}: given")
        lines.append(_explain_spread(ranks, counts))
        return counts
    if nodes is None:
        lines += ["nodes = 1: nothing else given", "ranks = 1: nothing else given"]
        _require_hosts(1, hosts)
        return [1]
    _require_hosts(nodes, hosts)
    used = hosts[:nodes]
    if resources.cpus_per_rank == "auto" or any(host.cores is None for host in used):
        counts = [1] * nodes
        lines.append("ranks_per_node = 1: nothing else given")
    else:
        counts = [max(1, room_for(host, cpus, placement)) for host in used]
        lines += dict.fromkeys(
            f"ranks on {shown_host(host.name)} = cores ÷ cpus_per_rank = "
            f"{host.cores} ÷ {cpus} = {count}"
            if count == (host.cores or 0) // cpus
            else f"ranks on {shown_host(host.name)} = {count}: so many have {cpus} cores of one "
            f"{part_name(placement)}"
            for host, count in zip(used[:_SHOWN], counts, strict=False)
        )
    lines.append(f"ranks = {sum(counts)}")
    return counts


def _equal_counts(
    nodes: int | None,
    per_node: int,
    ranks: int | None,
    hosts: Sequence[Host],
    lines: list[str],
) -> list[int]:
    if nodes is None and ranks is not None:
        if ranks % per_node:
            raise refusal(
                f"ranks ÷ ranks_per_node = {ranks} ÷ {per_node} = {ranks / per_node:.4g}, "
                "which is no whole number of nodes",
                help="leave one of them out, or give hosts with the ranks of each",
            )
        nodes = ranks // per_node
        lines.append(f"nodes = ranks ÷ ranks_per_node = {ranks} ÷ {per_node} = {nodes}")
    elif nodes is None:
        nodes = 1
        lines.append("nodes = 1: nothing else given")
    product = nodes * per_node
    equation = f"nodes × ranks_per_node = {nodes} × {per_node} = {product}"
    if ranks not in (None, product):
        raise refusal(f"{equation}, but ranks = {ranks}", help="leave one of the three out")
    _require_hosts(nodes, hosts)
    lines += [f"ranks_per_node = {per_node}: given", f"ranks = {equation}"]
    return [per_node] * nodes


def _fewest_nodes(ranks: int, cpus: int, hosts: Sequence[Host], placement: PlacementSpec) -> int:
    """How many of the first hosts hold the ranks; all of them if even those do not."""
    if placement.oversubscribe:
        return 1
    room = 0
    for number, host in enumerate(hosts, start=1):
        if host.cores is None:
            return number
        room += room_for(host, cpus, placement)
        if room >= ranks:
            return number
    return max(1, len(hosts))


def _spread(ranks: int, cpus: int, hosts: Sequence[Host], placement: PlacementSpec) -> list[int]:
    """The ranks, one after the other, each to the host with the fewest that has room."""
    rooms = [ranks if host.cores is None else room_for(host, cpus, placement) for host in hosts]
    if placement.oversubscribe or sum(rooms) < ranks or min(rooms) < 1:
        rooms = [ranks] * len(hosts)  # too few cores: an even spread shows best what is lacking
    counts = [0] * len(hosts)
    heap = [(0, index) for index in range(len(hosts))]
    heapify(heap)
    for _ in range(ranks):
        count, index = heap[0]
        counts[index] = count + 1
        full = counts[index] == rooms[index]
        heapreplace(heap, (ranks if full else count + 1, index))
    return counts


def _require_hosts(nodes: int, hosts: Sequence[Host]) -> None:
    if nodes > len(hosts):
        raise refusal(
            f"nodes = {nodes}, but {len(hosts)} host{'s' * (len(hosts) != 1)} can be had "
            f"({shown_hosts(host.name for host in hosts)})",
            help="ask for fewer nodes, or name the hosts with their ranks in resources.hosts",
        )


def _explain_spread(ranks: int, counts: Sequence[int]) -> str:
    if len(set(counts)) == 1:
        return f"ranks_per_node = ranks ÷ nodes = {ranks} ÷ {len(counts)} = {counts[0]}"
    return f"ranks_per_node = {min(counts)} to {max(counts)}: {ranks} ranks on {len(counts)} nodes"


def _sum_of(numbers: Sequence[int]) -> str:
    counts = list(map(str, numbers))
    shown = counts if len(counts) <= 2 * _SHOWN else [*counts[:_SHOWN], "…", counts[-1]]
    return " + ".join(shown)
