"""What the ranks of each host say about their cores, beside what each was to have. Pure.

Linear in ranks and their cores: thousands of ranks may stand on one host.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from clusterseg.plan.words import counted
from clusterseg.runs.affinity import CpuPlace
from clusterseg.runs.records import RankStart
from clusterseg.runs.text import ranges

# By host (names short or long), the places of the CPUs that may be used there.
Ground = Mapping[str, Mapping[int, CpuPlace]]


@dataclass(frozen=True)
class Finding:
    """What is not as planned, for a person, and the ranks that are concerned."""

    text: str
    ranks: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class CheckedRank:
    """What a rank said. `cores` are its physical ones, each named by its first thread and with
    its socket; of an older clusterseg, its CPUs, whose sockets are not known."""

    start: RankStart
    cores: Mapping[int, int | None]

    @property
    def number(self) -> int:
        return self.start.rank


@dataclass(frozen=True)
class CheckedHost:
    """The ranks that say they are on one host. `places`: of the CPUs that may be used there, None
    where that is not known; `alike`: of a host like it."""

    name: str
    ranks: list[CheckedRank]
    places: Mapping[int, CpuPlace] | None
    alike: Mapping[int, CpuPlace]

    @property
    def largest_socket(self) -> int:
        """How many cores one socket surely has."""
        seen = {core for rank in self.ranks for core in rank.cores.items()}
        sizes = Counter(socket for _, socket in seen if socket is not None)
        return max([*sizes.values(), _largest(self.alike, lambda place: place.socket)])

    @property
    def largest_node(self) -> int:
        """How many cores one NUMA node surely has."""
        seen: dict[int, set[int]] = {}
        for rank in self.ranks:
            if len(rank.start.numa) == 1:
                seen.setdefault(rank.start.numa[0], set()).update(rank.cores)
        return max([*map(len, seen.values()), _largest(self.alike, lambda place: place.numa)])


def by_host(starts: Sequence[RankStart], ground: Ground) -> list[CheckedHost]:
    """By the name that the ranks say, which all of one host say alike."""
    ranks: dict[str, list[CheckedRank]] = {}
    for start in starts:
        ranks.setdefault(start.host, []).append(CheckedRank(start, _cores_of(start)))
    known = {short_name(host): places for host, places in ground.items()}
    seen = {host: known.get(short_name(host)) for host in ranks}
    alike = next(filter(None, seen.values()), {})  # the hosts of a job are alike, as a rule
    return [
        CheckedHost(host, of_host, seen[host], seen[host] or alike)
        for host, of_host in ranks.items()
    ]


def _cores_of(start: RankStart) -> dict[int, int | None]:
    """From `socket.first-thread`, where the kernel may call the socket -1."""
    named = [core.rpartition(".") for core in start.cores]
    try:
        cores: dict[int, int | None] = {int(first): int(socket) for socket, _, first in named}
    except ValueError:
        cores = {}
    return cores or dict.fromkeys(start.cpus)


def outside(hosts: Sequence[CheckedHost]) -> list[Finding]:
    """As where nothing parts two jobs on one node, and both are bound to its first cores."""
    said = []
    for host in hosts:
        if host.places is None:
            continue
        cores = {place.core for place in host.places.values()}
        for rank in host.ranks:
            free = cores if rank.start.cores else set(host.places)
            if beyond := set(rank.cores) - free:
                text = (
                    f"rank {rank.number} on {host.name} runs on {_cores(beyond)}, but this job "
                    f"has {_cores(free)} there"
                )
                said.append(Finding(text, (rank.number,)))
    return said


def fewer(hosts: Sequence[CheckedHost], cpus: int) -> list[Finding]:
    """Two threads of a core are one core."""
    return [
        Finding(
            f"rank {rank.number} on {host.name} has {counted(len(rank.cores), 'core')} "
            f"(processors {ranges(rank.start.cpus)}), {cpus} {'was' if cpus == 1 else 'were'} "
            "planned",
            (rank.number,),
        )
        for host in hosts
        for rank in host.ranks
        if rank.cores and len(rank.cores) < cpus
    ]


def across(hosts: Sequence[CheckedHost], cpus: int, *, numa: bool) -> list[Finding]:
    """Ranks over several sockets or NUMA nodes whose cores would fit in one."""
    said = []
    what = "NUMA nodes" if numa else "sockets"
    for host in hosts:
        over = {rank: rank.start.numa if numa else rank.start.sockets for rank in host.ranks}
        spread = [rank for rank, places in over.items() if len(places) > 1]
        if not spread or (host.largest_node if numa else host.largest_socket) < cpus:
            continue
        said += [
            Finding(
                f"rank {rank.number} on {host.name} is spread over the {what} "
                f"{ranges(over[rank])} ({_cores(rank.cores)}), one was planned",
                (rank.number,),
            )
            for rank in spread
        ]
    return said


def shared(hosts: Sequence[CheckedHost]) -> list[Finding]:
    """Ranks that have physical cores in common, be it by one thread each."""
    said = []
    for host in hosts:
        owners: dict[int, list[int]] = {}
        for rank in host.ranks:
            for core in rank.cores:
                owners.setdefault(core, []).append(rank.number)
        groups: dict[tuple[int, ...], list[int]] = {}
        for core, ranks in owners.items():
            if len(ranks) > 1:
                groups.setdefault(tuple(ranks), []).append(core)
        said += [
            Finding(
                f"ranks {_ranks(ranks)} on {host.name} share {_cores(cores)}; each was to have "
                "its own",
                ranks,
            )
            for ranks, cores in groups.items()
        ]
    return said


def shared_devices(starts: Sequence[RankStart]) -> list[Finding]:
    """Ranks of one host that were dealt the same accelerators."""
    owners: dict[tuple[str, str], list[int]] = {}
    for start in starts:
        for device in filter(None, start.device.split(",")):
            owners.setdefault((start.host, device), []).append(start.rank)
    groups: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for (host, device), ranks in owners.items():
        if len(ranks) > 1:
            groups.setdefault((host, tuple(ranks)), []).append(device)
    return [
        Finding(
            f"ranks {_ranks(ranks)} on {host} share accelerator{'s' * (len(devices) > 1)} "
            f"{', '.join(devices)}; each was to have its own",
            ranks,
        )
        for (host, ranks), devices in groups.items()
    ]


def crowded(hosts: Sequence[CheckedHost], cpus: int) -> list[Finding]:
    """Sockets or NUMA nodes on which more ranks stand than they have cores for."""
    said = []
    for host in hosts:
        standing: dict[tuple[int, ...], list[int]] = {}
        for rank in host.ranks:
            standing.setdefault(tuple(rank.cores), []).append(rank.number)
        said += [
            Finding(
                f"ranks {_ranks(ranks)} on {host.name} share {_cores(cores)}, and need "
                f"{len(ranks)} × {cpus} = {len(ranks) * cpus}",
                tuple(ranks),
            )
            for cores, ranks in standing.items()
            if cores and len(ranks) > 1 and len(ranks) * cpus > len(cores)
        ]
    return said


def _largest(places: Mapping[int, CpuPlace], of: Callable[[CpuPlace], int]) -> int:
    cores = {(of(place), place.core) for place in places.values()}
    return max(Counter(where for where, _ in cores).values(), default=0)


def _cores(cores: Collection[int]) -> str:
    return f"core{'s' * (len(cores) != 1)} {ranges(cores)}"


def _ranks(ranks: Sequence[int]) -> str:
    return " and ".join(map(str, ranks)) if len(ranks) == 2 else ranges(ranks)


def short_name(host: str) -> str:
    """Without the domain, which some name and others don't."""
    return host.split(".", maxsplit=1)[0].lower()
