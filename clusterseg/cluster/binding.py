"""Which CPUs each rank of a host gets, of those that may be used. Pure.

What a launcher of MPI does for its ranks, `clusterseg ranks` does by this: local ranks are dealt
out over the sockets or NUMA nodes, or fill one after the other, each with whole cores.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping

from clusterseg.runs.affinity import CpuPlace

Core = tuple[int, int, int]  # socket, NUMA node, core: in this order cores are handed out


def deal_out(
    places: Mapping[int, CpuPlace], ranks: int, cores: int, *, map_by: str, bind_to: str
) -> list[frozenset[int]]:
    """The CPUs of each rank, by local rank; `cores` is how many physical ones each is to have.

    `map_by` and `bind_to` are words of job.yaml's `placement`. Cores of a rank never lie on
    several sockets. Raises ValueError, with what does not fit, if `bind_to` is `core` and there
    are too few.
    """
    if bind_to == "none":
        return [frozenset(places)] * ranks
    threads: dict[Core, set[int]] = {}
    for cpu, place in places.items():
        threads.setdefault((place.socket, place.numa, place.core), set()).add(cpu)
    if bind_to == "core":
        homes = _own_cores(sorted(threads), ranks, cores, map_by)
        return [frozenset(cpu for core in home for cpu in threads[core]) for home in homes]
    wide = 1 if bind_to == "socket" else 2
    domains: dict[tuple[int, ...], set[int]] = {}
    for core, cpus in threads.items():
        domains.setdefault(core[:wide], set()).update(cpus)
    homes_of = [core[:wide] for core in _first_cores(sorted(threads), ranks, cores, map_by)]
    return [frozenset(domains[home]) for home in homes_of]


def cpu_list(cpus: Iterable[int]) -> str:
    """`0-3,8` for 0, 1, 2, 3, 8."""
    runs: list[list[int]] = []
    for cpu in sorted(cpus):
        if runs and cpu == runs[-1][1] + 1:
            runs[-1][1] = cpu
        else:
            runs.append([cpu, cpu])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _own_cores(order: list[Core], ranks: int, cores: int, map_by: str) -> list[list[Core]]:
    """For each rank the cores that are its alone."""
    free = _domains(order, map_by)
    turns = list(free)
    homes = []
    for rank in range(ranks):
        # The domain whose turn it is, else the next one that has room.
        round_ = [turns[(rank + step) % len(turns)] for step in range(len(turns))]
        home = next((one for one in round_ if len(free[one]) >= cores), None)
        if home is None:
            what = {"socket": "one socket", "numa": "one NUMA node"}.get(map_by, "this host")
            raise ValueError(
                f"rank {rank} of {ranks} is to have {cores} free core{'s' * (cores != 1)} of "
                f"{what}, but there are {max(map(len, free.values()))}"
            )
        mine, free[home] = free[home][:cores], free[home][cores:]
        if len({core[0] for core in mine}) > 1:
            raise ValueError(f"the {cores} cores of rank {rank} would lie on several sockets")
        homes.append(mine)
    return homes


def _first_cores(order: list[Core], ranks: int, cores: int, map_by: str) -> list[Core]:
    """For each rank a core of the domain that it is dealt to, which others may share."""
    domains = list(_domains(order, map_by).values())
    if len(domains) == 1:  # one after the other, and round again where there are too few
        return [order[rank * cores % len(order)] for rank in range(ranks)]
    # Ranks that share a domain stand one after the other in it.
    return [
        (domain := domains[rank % len(domains)])[rank // len(domains) * cores % len(domain)]
        for rank in range(ranks)
    ]


def _domains(order: list[Core], map_by: str) -> dict[Hashable, list[Core]]:
    """The cores by what ranks are dealt out over; all together where they fill the host."""
    wide = {"socket": 1, "numa": 2}.get(map_by, 0)
    domains: dict[Hashable, list[Core]] = {}
    for core in order:
        domains.setdefault(core[:wide], []).append(core)
    return domains
