"""The map of a placement, as a person sees it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from clusterseg.cli.placement_view import placement_lines
from clusterseg.runs.placement import PlacementCheck, placement
from clusterseg.runs.records import RankStart

SOCKET = 16  # cores


def rank(number: int, host: str, cores: Sequence[int], device: str = "") -> RankStart:
    return RankStart(
        t=0.0, rank=number, attempt=0, world_size=1, host=host, cpus=list(cores),
        cores=[f"{core // SOCKET}.{core}" for core in cores],
        sockets=sorted({core // SOCKET for core in cores}), numa=[0], device=device,
    )  # fmt: skip


def lines(starts: list[RankStart], *wrong: int) -> list[str]:
    problems = [f"rank {number} is wrong" for number in wrong]
    found = placement(0, starts, PlacementCheck(t=0.0, problems=problems, ranks=list(wrong)))
    assert found is not None
    return placement_lines(found)


def eight(host: str, first: int = 0) -> list[RankStart]:
    """Dealt out over two sockets, four cores each."""
    begins = [SOCKET * (local % 2) + 4 * (local // 2) for local in range(8)]
    return [
        rank(first + local, host, range(begin, begin + 4)) for local, begin in enumerate(begins)
    ]


@pytest.mark.parametrize(
    ("starts", "said"),
    [
        ([rank(0, "vm", [0, 1])], ["  vm  s0 0:0-1"]),
        ([rank(0, "vm", [0]), rank(1, "vm", [1])], ["  vm  s0 0:0 1:1"]),
        (
            eight("h1"),
            ["  h1  s0 0:0-3 2:4-7 4:8-11 6:12-15   s1 1:16-19 3:20-23 5:24-27 7:28-31"],
        ),
        ([rank(number, "vm", range(32)) for number in range(8)], ["  vm  s0+s1 0-7:0-31"]),
        ([rank(0, "n1", [0]), rank(1, "node2", [3])], ["  n1     s0 0:0", "  node2  s0 1:3"]),
        ([rank(0, "vm", [0], "4"), rank(1, "vm", [1], "5")], ["  vm  s0 0:0@4 1:1@5"]),
        (
            [RankStart(t=0.0, rank=0, attempt=0, world_size=1, host="old", cpus=[0, 1, 5])],
            ["  old  s? 0:0-1,5"],
        ),
        ([RankStart(t=0.0, rank=0, attempt=0, world_size=1, host="older")], ["  older  s? 0:?"]),
    ],
)
def test_ranks_as_planned(starts: list[RankStart], said: list[str]) -> None:
    title, *found = lines(starts)
    assert title.startswith("placement     as planned (s0: socket 0, then rank:cores")
    assert found == said


def test_what_is_not_as_planned_is_marked_and_said() -> None:
    title, *found = lines([rank(0, "vm", [0]), rank(1, "vm", [1]), rank(2, "vm", [1])], 1, 2)
    assert title.startswith("placement     NOT as planned, see !")
    assert found == ["  vm  s0 0:0 1-2:1!", "  ! rank 1 is wrong", "  ! rank 2 is wrong"]


def test_of_many_hosts_and_ranks_the_wrong_ones_are_shown_and_the_others_counted() -> None:
    starts = [start for host in range(12) for start in eight(f"n{host:02}", 8 * host)]
    _, *found = lines(starts, 95)
    assert [line.split()[0] for line in found[:8]] == [*(f"n{host:02}" for host in range(7)), "n11"]
    assert found[8:] == ["  and 4 more hosts with 32 ranks", "  ! rank 95 is wrong"]
    _, *found = lines([rank(number, "vm", [number]) for number in range(64)], 63)
    assert " ".join(found).split() == [
        "vm", "s0", *(f"{number}:{number}" for number in range(15)),
        "s3", "63:63!", "and", "48", "more", "ranks", "!", "rank", "63", "is", "wrong",
    ]  # fmt: skip
    assert max(map(len, found)) <= 100


def test_a_name_of_a_host_can_not_drive_the_terminal() -> None:
    assert lines([rank(0, "\x1b[2J", [0])])[1:] == ["  \\x1b[2J  s0 0:0"]
