"""Which CPUs each rank of a host gets, of those that may be used. Pure.

What a launcher of MPI does for its ranks, `clusterseg ranks` does by this: local ranks are dealt
out over the sockets or NUMA nodes, or fill one after the other, each with whole cores.
"""

from __future__ import annotations

from collections.abc import Mapping

from clusterseg.runs.affinity import CpuPlace

Part = tuple[int, ...]  # of a host: (), (socket,) or (socket, NUMA node)
Core = tuple[int, int, int]  # socket, NUMA node, core: in this order cores are handed out


def deal_out(
    places: Mapping[int, CpuPlace], ranks: int, cores: int, *, map_by: str, bind_to: str
) -> list[frozenset[int]]:
    """The CPUs of each rank, by local rank; `cores` is how many physical ones each is to have.

    `map_by` and `bind_to` are words of job.yaml's `placement`, and ranks stand where the planner
    lays them out (`clusterseg.plan.layout`). Raises ValueError, with what does not fit, if
    `bind_to` is `core` and there are too few.
    """
    if bind_to == "none":
        return [frozenset(places)] * ranks
    threads: dict[Core, set[int]] = {}
    for cpu, place in places.items():
        threads.setdefault((place.socket, place.numa, place.core), set()).add(cpu)
    order = sorted(threads)
    if bind_to == "core":
        homes = _own_cores(order, ranks, cores, map_by)
    elif bind_to == "socket":
        homes = _shared(order, 1, _sockets_in_turn(order, ranks, cores, map_by))
    else:
        homes = _shared(order, 2, _nodes_in_turn(order, ranks, cores, map_by))
    return [frozenset(cpu for core in home for cpu in threads[core]) for home in homes]


def _own_cores(order: list[Core], ranks: int, cores: int, map_by: str) -> list[list[Core]]:
    """For each rank the cores that are its alone."""
    free = _parts(order, {"socket": 1, "numa": 2}.get(map_by, 0))
    turns = list(free)
    homes = []
    for rank in range(ranks):
        home = turns[rank % len(turns)]
        if len(free[home]) < cores:
            what = " ".join(
                f"{noun} {number}" for noun, number in zip(("socket", "node"), home, strict=False)
            )
            raise ValueError(
                f"rank {rank} of {ranks} is to have {cores} core{'s' * (cores != 1)} of "
                f"{what or 'this host'}, of which {len(free[home])} are free"
            )
        mine, free[home] = free[home][:cores], free[home][cores:]
        if len({core[0] for core in mine}) > 1:
            raise ValueError(f"the {cores} cores of rank {rank} would lie on several sockets")
        homes.append(mine)
    return homes


def _shared(order: list[Core], wide: int, stands: list[Part]) -> list[list[Core]]:
    """For each rank the whole socket or NUMA node that it stands on, which others may share."""
    parts = _parts(order, wide)
    return [parts[stand] for stand in stands]


def _sockets_in_turn(order: list[Core], ranks: int, cores: int, map_by: str) -> list[Part]:
    if map_by in ("socket", "numa"):
        turns = list(_parts(order, 1 if map_by == "socket" else 2))
        return [turns[rank % len(turns)][:1] for rank in range(ranks)]
    return [order[rank * cores % len(order)][:1] for rank in range(ranks)]


def _nodes_in_turn(order: list[Core], ranks: int, cores: int, map_by: str) -> list[Part]:
    nodes = list(_parts(order, 2))
    if map_by == "numa":
        return [nodes[rank % len(nodes)] for rank in range(ranks)]
    if map_by == "socket":  # over the sockets, and in each over its nodes
        of = [[node for node in nodes if node[:1] == socket] for socket in _parts(order, 1)]
        turns = [of[rank % len(of)] for rank in range(ranks)]
        return [turn[rank // len(of) % len(turn)] for rank, turn in enumerate(turns)]
    return [order[rank * cores % len(order)][:2] for rank in range(ranks)]


def _parts(order: list[Core], wide: int) -> dict[Part, list[Core]]:
    """The cores by socket (`wide` = 1), by NUMA node (2), or all together (0)."""
    parts: dict[Part, list[Core]] = {}
    for core in order:
        parts.setdefault(core[:wide], []).append(core)
    return parts
