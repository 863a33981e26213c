"""How many cores each rank has: solved, or given and checked against every host's sockets."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from clusterseg.errors import ClustersegError
from clusterseg.plan.layout import most_cpus, most_ranks, shape_of, shortfall
from clusterseg.plan.model import Host
from clusterseg.plan.symbols import shown_host, shown_hosts
from clusterseg.spec.model import PlacementSpec, ResourcesSpec


def cpus_per_rank(
    resources: ResourcesSpec,
    hosts: Sequence[Host],
    counts: Sequence[int],
    placement: PlacementSpec,
    lines: list[str],
) -> int:
    """Cores of one rank, the same on all hosts: what the tightest host can give."""
    if resources.cpus_per_rank != "auto":
        lines.append(f"cpus_per_rank = {resources.cpus_per_rank}: given")
        return resources.cpus_per_rank
    if any(host.cores is None for host in hosts):
        unknown = [host.name for host in hosts if host.cores is None]
        lines.append(f"cpus_per_rank = 1: the cores of {shown_hosts(unknown)} are not known")
        return 1
    host, count = min(
        zip(hosts, counts, strict=True), key=lambda each: (each[0].cores or 0) // each[1]
    )
    cores, name = host.cores or 0, shown_host(host.name)
    if count > cores:
        if not placement.oversubscribe:
            raise refusal(
                f"ranks on {name} = {count}, but it has {cores} core{'s' * (cores != 1)}",
                help="ask for fewer ranks, or set placement.oversubscribe: true",
            )
        lines.append(f"cpus_per_rank = 1: {count} ranks share the {cores} cores of {name}")
        return 1
    cpus = cores // count
    if not have_whole_hosts(hosts, counts, cpus, placement):
        host, count, cpus = min(
            (
                (host, count, _most(host, count, placement))
                for host, count in zip(hosts, counts, strict=True)
            ),
            key=lambda each: each[2],
        )
        cores, name = host.cores or 0, shown_host(host.name)
    share = f"cores ÷ ranks on {name} = {cores} ÷ {count} = {cores // count}"
    if cpus == cores // count:
        lines.append(f"cpus_per_rank = {share}")
    else:
        lines.append(
            f"cpus_per_rank = {cpus}, less than {share}: "
            f"a rank's cores are those of one {part_name(placement)}"
        )
    return cpus


def have_whole_hosts(
    hosts: Sequence[Host], counts: Sequence[int], cpus: int, placement: PlacementSpec
) -> bool:
    """Whether the ranks are alone on their hosts, and one has more cores than any socket has.

    There is nothing to bind it to then that a launcher could name, and nobody to keep it from.
    """
    if placement.bind_to != "core" or set(counts) != {1}:
        return False
    wide = [host for host in hosts if host.cores and cpus > _most(host, 1, placement)]
    return bool(wide) and all(_is_whole(host, cpus, placement) for host in wide)


def room_for(host: Host, cpus: int, placement: PlacementSpec) -> int:
    """How many ranks of `cpus` cores a host whose cores are known takes."""
    most = most_ranks(shape_of(host), cpus, placement.map_by, placement.bind_to)
    return most or int(_is_whole(host, cpus, placement))


def _is_whole(host: Host, cpus: int, placement: PlacementSpec) -> bool:
    return host.cores == cpus and placement.bind_to == "core"


def _most(host: Host, count: int, placement: PlacementSpec) -> int:
    return most_cpus(shape_of(host), count, placement.map_by, placement.bind_to)


def lack(host: Host, count: int, cpus: int, placement: PlacementSpec, whole: bool) -> str | None:
    """The equation that shows that a host has too few cores, or None."""
    if host.cores is None or (whole and cpus <= host.cores):
        return None
    name = shown_host(host.name)
    if count * cpus > host.cores:
        return (
            f"ranks × cpus_per_rank = {count} × {cpus} = {count * cpus}, "
            f"but {name} has {host.cores} core{'s' * (host.cores != 1)}"
        )
    lacking = shortfall(shape_of(host), count, cpus, placement.map_by, placement.bind_to)
    return None if lacking is None else f"on {name} {lacking}"


def way_out(
    hosts: Sequence[Host], counts: Sequence[int], cpus: int, placement: PlacementSpec
) -> str:
    """What to do about cores that are lacking."""
    known = [each for each in zip(hosts, counts, strict=True) if each[0].cores is not None]
    if any(count * cpus > (host.cores or 0) for host, count in known):
        return "ask for fewer ranks or cores, or set placement.oversubscribe: true"
    fits = min(_most(host, count, placement) for host, count in known)
    ways = [f"cpus_per_rank: {fits} is the most that fits"] if fits else []
    dealt = replace(placement, map_by="socket")
    if all(cpus <= _most(host, count, dealt) for host, count in known):
        ways.append("or set placement.map_by: socket")
    ways.append("or set placement.bind_to: none, and ranks may run on all sockets")
    return ", ".join(ways).removeprefix("or ")


def part_name(placement: PlacementSpec) -> str:
    """What the cores of a rank are all of."""
    map_by, bind_to = placement.map_by, placement.bind_to
    by_numa = bind_to == "numa" or (bind_to == "core" and map_by == "numa")
    return "NUMA node" if by_numa else "socket"


def refusal(equation: str, *, help: str | None = None) -> ClustersegError:
    return ClustersegError(
        f"resources: {equation}",
        code="geometry",
        help=help or "leave one of them out: it is solved from the others",
    )
