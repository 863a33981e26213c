"""One host's ranks on its sockets, NUMA nodes and cores: where each stands, and whether it fits.

The same rules for every launcher, since not every one has them: Open MPI refuses what can't be,
Hydra and Intel MPI let ranks overlap or reach over two sockets, without a word. Ranks that are
mapped by socket or NUMA node are dealt out over these in turn, by core or node they take one core
after the other. A rank that is bound to cores has `cpus` of them, all of one socket (mapped by
NUMA node: of one node); ranks that are bound to a socket or node share its cores, but have enough.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from clusterseg.plan.model import Host, Shape
from clusterseg.spec.fields import BindTo, MapBy

_REMEMBERED = 4096  # layouts; a cluster has few kinds of hosts
_FILLED: tuple[MapBy, ...] = ("core", "node")  # ranks take one core after the other


@dataclass(frozen=True)
class HostLayout:
    """By local rank the socket and the NUMA node that it stands on, counted from 0 over the host.

    None: it may run on several of them. `cpus` are the cores that a rank has.
    """

    sockets: tuple[int | None, ...]
    numa: tuple[int | None, ...]
    cpus: int


@dataclass(frozen=True)
class _Domain:
    """A socket or a NUMA node that ranks share. `numa` are the cores of its NUMA nodes."""

    noun: str
    number: int
    socket: int
    first_numa: int
    numa: tuple[int, ...]

    @property
    def cores(self) -> int:
        return sum(self.numa)


def shape_of(host: Host) -> Shape:
    """The shape of a host whose number of cores is known."""
    if host.shape is not None:
        return host.shape
    return even_shape(host.cores or 0, host.sockets, host.numa_nodes)


@lru_cache(_REMEMBERED)
def most_in_nodes(shape: Shape, count: int, cpus: int, map_by: MapBy) -> int:
    """The most cores a rank, up to `cpus`, of which none has to be the rest of a NUMA node that
    another rank has begun; `cpus` where they can't be laid out at all."""
    layout = lay_out(shape, count, cpus, map_by, "core")
    if isinstance(layout, str):
        return cpus
    ranks = [layout.sockets.count(number) for number in range(len(shape))]

    def fits(fewer: int) -> bool:
        return all(each <= _room(numa, fewer) for each, numa in zip(ranks, shape, strict=True))

    return next((fewer for fewer in range(cpus, 0, -1) if fits(fewer)), cpus)


def _room(numa: Sequence[int], cpus: int) -> int:
    """How many ranks fit into a socket if each has its part of a NUMA node, or nodes, alone."""
    if cpus <= min(numa):
        return sum(cores // cpus for cores in numa)
    return len(numa) // -(-cpus // min(numa))


@lru_cache(_REMEMBERED)
def even_shape(cores: int, sockets: int, numa_nodes: int) -> Shape:
    """`cores` dealt out evenly over the NUMA nodes, and these over the sockets, each of which has
    one at least; the first ones have what is left over."""
    sockets = max(1, min(sockets, cores))
    found: list[tuple[int, ...]] = []
    for own, nodes in zip(
        _even(cores, sockets), _even(max(numa_nodes, sockets), sockets), strict=True
    ):
        found.append(tuple(_even(own, max(1, min(nodes, own)))))
    return tuple(found)


@lru_cache(_REMEMBERED)
def lay_out(
    shape: Shape, count: int, cpus: int, map_by: MapBy, bind_to: BindTo
) -> HostLayout | str:
    """Where `count` ranks of `cpus` cores stand on a host of `shape`, or `shortfall`."""
    lacking = shortfall(shape, count, cpus, map_by, bind_to)
    if lacking is not None:
        return lacking
    if bind_to == "none":
        return HostLayout((None,) * count, (None,) * count, cpus)
    if map_by in _FILLED:
        return _filled(shape, count, cpus, bind_to)
    stands = _stands(shape, count, map_by, bind_to)
    return HostLayout(tuple(domain.socket for domain in stands), _numa(stands, cpus, bind_to), cpus)


@lru_cache(_REMEMBERED)
def shortfall(shape: Shape, count: int, cpus: int, map_by: MapBy, bind_to: BindTo) -> str | None:
    """The equation that fails where `count` ranks of `cpus` cores don't fit; None if they do.

    There is no host in it: "ranks × cpus_per_rank on socket 0 = 2 × 10 = 20, but it has 16 cores".
    """
    cores = _cores(shape)
    if count * cpus > cores:
        return f"ranks × cpus_per_rank = {count} × {cpus} = {count * cpus}, but {_has(cores)}"
    if bind_to == "none":
        return None
    if map_by in _FILLED:
        ends = _ends_of(_parts(shape, bind_to))
        cut = _cut(ends, count, cpus)
        if cut is None:
            return None
        part, rank = cut
        return (
            f"local rank {rank} would have the cores {rank * cpus} to {(rank + 1) * cpus - 1}, but "
            f"{'NUMA node' if bind_to == 'numa' else 'socket'} {part} ends with {ends[part] - 1}"
        )
    for domain, ranks in Counter(_stands(shape, count, map_by, bind_to)).items():
        if ranks * cpus > domain.cores:
            return (
                f"ranks × cpus_per_rank on {domain.noun} {domain.number} = {ranks} × {cpus} = "
                f"{ranks * cpus}, but {_has(domain.cores)}"
            )
    return None


@lru_cache(_REMEMBERED)
def most_cpus(shape: Shape, count: int, map_by: MapBy, bind_to: BindTo) -> int:
    """The most cores that each of `count` ranks can have; 0 where not even one can be had."""
    cores = _cores(shape)
    if bind_to == "none":
        return cores // count
    if map_by in _FILLED:
        ends = _ends_of(_parts(shape, bind_to))
        fitting = (cpus for cpus in range(cores // count, 0, -1) if not _cut(ends, count, cpus))
        return next(fitting, 0)
    shares = Counter(_stands(shape, count, map_by, bind_to))
    return min(domain.cores // ranks for domain, ranks in shares.items())


@lru_cache(_REMEMBERED)
def most_ranks(shape: Shape, cpus: int, map_by: MapBy, bind_to: BindTo) -> int:
    """The most ranks of `cpus` cores that a host of `shape` takes."""
    low, high = 0, _cores(shape) // cpus
    while low < high:  # fewer ranks fit wherever more do
        count = (low + high + 1) // 2
        if shortfall(shape, count, cpus, map_by, bind_to) is None:
            low = count
        else:
            high = count - 1
    return low


def _stands(shape: Shape, count: int, map_by: MapBy, bind_to: BindTo) -> list[_Domain]:
    """By rank, the socket or NUMA node whose cores it shares with the others that stand there."""
    sockets, nodes = _domains(shape)
    bound_to_numa = bind_to == "numa" or (bind_to == "core" and map_by == "numa")
    if map_by == "numa":
        every = [node for of_socket in nodes for node in of_socket]
        turn = every if bound_to_numa else [sockets[node.socket] for node in every]
        return [turn[rank % len(turn)] for rank in range(count)]
    if bound_to_numa:  # over the sockets, and in each over its nodes
        return [
            nodes[socket][rank // len(nodes) % len(nodes[socket])]
            for rank in range(count)
            for socket in [rank % len(nodes)]
        ]
    return [sockets[rank % len(sockets)] for rank in range(count)]


def _domains(shape: Shape) -> tuple[list[_Domain], list[list[_Domain]]]:
    """The sockets, and the NUMA nodes of each."""
    sockets: list[_Domain] = []
    nodes: list[list[_Domain]] = []
    first = 0
    for socket, numa in enumerate(shape):
        sockets.append(_Domain("socket", socket, socket, first, numa))
        nodes.append(
            [
                _Domain("NUMA node", number, socket, number, (cores,))
                for number, cores in enumerate(numa, start=first)
            ]
        )
        first += len(numa)
    return sockets, nodes


def _numa(stands: Sequence[_Domain], cpus: int, bind_to: BindTo) -> tuple[int | None, ...]:
    """By rank its NUMA node. Ranks that are bound to cores take those of a socket in turn."""
    taken: Counter[_Domain] = Counter()
    found: list[int | None] = []
    for domain in stands:
        width = cpus if bind_to == "core" else domain.cores
        first = taken[domain] * cpus if bind_to == "core" else 0
        found.append(_only(_ends_of(domain.numa), first, width, domain.first_numa))
        taken[domain] += 1
    return tuple(found)


def _filled(shape: Shape, count: int, cpus: int, bind_to: BindTo) -> HostLayout:
    sockets, nodes = _ends_of(_parts(shape, "socket")), _ends_of(_parts(shape, "numa"))
    firsts = [rank * cpus for rank in range(count)]
    numa: list[int | None] = [_only(nodes, first, cpus, 0) for first in firsts]
    on = [_only(sockets, first, cpus, 0) or 0 for first in firsts]
    if bind_to == "socket":
        numa = [
            node if len(shape[socket]) == 1 else None for node, socket in zip(numa, on, strict=True)
        ]
    return HostLayout(tuple(on), tuple(numa), cpus)


def _cut(ends: Sequence[int], count: int, cpus: int) -> tuple[int, int] | None:
    """The first part whose end falls inside of a rank's cores, and that local rank."""
    inside = (
        (part, end // cpus) for part, end in enumerate(ends) if end % cpus and end < count * cpus
    )
    return next(inside, None)


def _only(ends: Sequence[int], first: int, cpus: int, number: int) -> int | None:
    """The one part, from `number` on, that holds the cores from `first` on; None: several do."""
    part = next(index for index, end in enumerate(ends) if first < end)
    return number + part if first + cpus <= ends[part] else None


def _parts(shape: Shape, bind_to: BindTo) -> list[int]:
    """The cores of each part that holds a rank's cores whole: of NUMA nodes, or of sockets."""
    if bind_to == "numa":
        return [cores for numa in shape for cores in numa]
    return [sum(numa) for numa in shape]


def _ends_of(parts: Sequence[int]) -> list[int]:
    ends, total = [], 0
    for part in parts:
        total += part
        ends.append(total)
    return ends


def _even(total: int, parts: int) -> list[int]:
    """`total` in `parts`, the first of which have what is left over."""
    share, over = divmod(total, parts)
    return [share + (part < over) for part in range(parts)]


def _cores(shape: Shape) -> int:
    return sum(map(sum, shape))


def _has(cores: int) -> str:
    return f"it has {cores} core{'s' * (cores != 1)}"
