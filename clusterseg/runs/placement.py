"""Where the ranks of an attempt stand, by host: what they said at their start, and whether that
is as planned, which the supervisor has compared."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec import Struct

from clusterseg.runs import files
from clusterseg.runs.attempts import Attempt
from clusterseg.runs.paths import AttemptPaths
from clusterseg.runs.records import RankStart

_LARGEST = 4 << 20  # bytes; a rank has some


class PlacementCheck(Struct, frozen=True, kw_only=True):
    """attempts/NNN/placement.json: what is not as planned, in words, and the ranks concerned.

    Written once by the supervisor, when all ranks have started, or as soon as they are surely
    wrong. Absent: it was not compared (yet), or there is no word of it.
    """

    t: float
    problems: list[str] = []
    ranks: list[int] = []


class PlacedRank(Struct, frozen=True, kw_only=True):
    """One rank; the fields are those of its `rank_start`."""

    rank: int
    local_rank: int
    cpus: list[int]
    cores: list[str]
    sockets: list[int]
    numa: list[int]
    device: str
    as_planned: bool | None


class PlacedHost(Struct, frozen=True, kw_only=True):
    """One host and its ranks, in order."""

    host: str
    ranks: list[PlacedRank]


class Placement(Struct, frozen=True, kw_only=True):
    """The ranks of one attempt that have started, by host in the order of their first ranks.

    `as_planned` is None where nothing was compared (yet).
    """

    attempt: int
    as_planned: bool | None
    problems: list[str]
    hosts: list[PlacedHost]


def write_check(paths: AttemptPaths, check: PlacementCheck) -> None:
    """Records what was found; it stays. Raises OSError."""
    files.commit_new(paths.placement, msgspec.json.encode(check))


def read_check(attempt: Attempt) -> PlacementCheck | None:
    """What the supervisor found; None if it has not compared yet, or that can't be read."""
    try:
        with attempt.open("placement.json") as stream:
            data = stream.read(_LARGEST)
        return msgspec.json.decode(data, type=PlacementCheck)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def placement(
    attempt: int, starts: Iterable[RankStart], check: PlacementCheck | None
) -> Placement | None:
    """The placement of an attempt; None while no rank has started."""
    wrong = frozenset(check.ranks) if check else frozenset[int]()
    hosts: dict[str, list[PlacedRank]] = {}
    for start in sorted(starts, key=lambda one: one.rank):
        hosts.setdefault(start.host, []).append(
            PlacedRank(
                rank=start.rank,
                local_rank=start.local_rank,
                cpus=start.cpus,
                cores=start.cores,
                sockets=start.sockets,
                numa=start.numa,
                device=start.device,
                as_planned=start.rank not in wrong if check else None,
            )
        )
    if not hosts:
        return None
    return Placement(
        attempt=attempt,
        as_planned=not check.problems if check else None,
        problems=check.problems if check else [],
        hosts=[PlacedHost(host=host, ranks=ranks) for host, ranks in hosts.items()],
    )
