"""CPUs dealt out to ranks: whole cores, no core twice, no rank across sockets."""

from __future__ import annotations

from collections import Counter
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterseg.cluster.binding import deal_out
from clusterseg.plan.layout import lay_out
from clusterseg.runs.affinity import CpuPlace
from clusterseg.spec.fields import BindTo, MapBy

Places = dict[int, CpuPlace]


def machine(sockets: int, nodes: int, cores: int, threads: int = 1) -> Places:
    """`cores` of each NUMA node, `nodes` of each socket; second threads are numbered after all
    first ones, as Linux does on most machines."""
    total = sockets * nodes * cores
    return {
        core + total * thread: CpuPlace(
            socket=core // (nodes * cores), numa=core // cores, core=core
        )
        for core in range(total)
        for thread in range(threads)
    }


BIG = machine(2, 1, 16)


def ranges(cpus: frozenset[int]) -> tuple[int, int]:
    assert cpus == frozenset(range(min(cpus), max(cpus) + 1))
    return min(cpus), max(cpus)


def test_by_socket_ranks_take_turns() -> None:
    """The recipe of the Habana seed: 8 ranks with 4 cores each on two sockets of 16."""
    dealt = deal_out(BIG, 8, 4, map_by="socket", bind_to="core")
    assert [ranges(cpus) for cpus in dealt] == [
        (0, 3), (16, 19), (4, 7), (20, 23), (8, 11), (24, 27), (12, 15), (28, 31),
    ]  # fmt: skip


def test_by_core_they_fill_the_host_from_its_first_core() -> None:
    dealt = deal_out(BIG, 8, 4, map_by="core", bind_to="core")
    assert [ranges(cpus) for cpus in dealt] == [(4 * n, 4 * n + 3) for n in range(8)]


def test_by_numa_node() -> None:
    dealt = deal_out(machine(2, 2, 8), 4, 3, map_by="numa", bind_to="core")
    assert [ranges(cpus) for cpus in dealt] == [(0, 2), (8, 10), (16, 18), (24, 26)]


@pytest.mark.parametrize(
    ("map_by", "bind_to", "expected"),
    [
        ("socket", "socket", [(0, 15), (16, 31), (0, 15)]),
        ("numa", "numa", [(0, 7), (8, 15), (16, 23)]),
        ("socket", "numa", [(0, 7), (16, 23), (8, 15)]),
        ("numa", "socket", [(0, 15), (0, 15), (16, 31)]),
        ("core", "socket", [(0, 15), (0, 15), (0, 15)]),
        ("node", "none", [(0, 31), (0, 31), (0, 31)]),
    ],
)
def test_wider_than_cores(map_by: str, bind_to: str, expected: list[tuple[int, int]]) -> None:
    dealt = deal_out(machine(2, 2, 8), 3, 4, map_by=map_by, bind_to=bind_to)
    assert [ranges(cpus) for cpus in dealt] == expected


def test_both_threads_of_a_core_belong_to_one_rank() -> None:
    dealt = deal_out(machine(1, 1, 4, threads=2), 2, 2, map_by="socket", bind_to="core")
    assert dealt == [frozenset({0, 1, 4, 5}), frozenset({2, 3, 6, 7})]


def test_only_cpus_that_may_be_used_are_dealt_out() -> None:
    some = {cpu: BIG[cpu] for cpu in (5, 6, 20, 21)}
    dealt = deal_out(some, 4, 1, map_by="socket", bind_to="core")
    assert dealt == [frozenset({5}), frozenset({20}), frozenset({6}), frozenset({21})]


@pytest.mark.parametrize(
    ("ranks", "cores", "map_by", "why"),
    [
        (1, 32, "socket", "rank 0 of 1 is to have 32 cores of socket 0, of which 16 are free"),
        (3, 10, "socket", "rank 2 of 3 is to have 10 cores of socket 0, of which 6 are free"),
        (4, 10, "numa", "rank 2 of 4 is to have 10 cores of socket 0 node 0, of which 6 are free"),
        (33, 1, "core", "rank 32 of 33 is to have 1 core of this host, of which 0 are free"),
        (5, 6, "core", "the 6 cores of rank 2 would lie on several sockets"),
    ],
)
def test_what_does_not_fit_is_said(ranks: int, cores: int, map_by: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        deal_out(BIG, ranks, cores, map_by=map_by, bind_to="core")


@given(
    st.builds(machine, *[st.integers(1, 4)] * 3, st.integers(1, 2)),
    st.integers(1, 12),
    st.integers(1, 6),
    st.sampled_from(get_args(MapBy)),
    st.sampled_from(get_args(BindTo)),
)
def test_ranks_stand_where_the_planner_lays_them_out(
    places: Places, ranks: int, cores: int, map_by: MapBy, bind_to: BindTo
) -> None:
    counts = Counter((place.socket, place.numa) for place in set(places.values()))
    sockets = sorted({socket for socket, _ in counts})
    shape = tuple(
        tuple(count for (on, _), count in sorted(counts.items()) if on == socket)
        for socket in sockets
    )
    planned = lay_out(shape, ranks, cores, map_by, bind_to)
    if isinstance(planned, str):
        return
    dealt = deal_out(places, ranks, cores, map_by=map_by, bind_to=bind_to)
    assert len(dealt) == ranks
    for cpus, socket, node in zip(dealt, planned.sockets, planned.numa, strict=True):
        assert len({places[cpu].core for cpu in cpus}) >= cores
        assert socket is None or {places[cpu].socket for cpu in cpus} == {socket}
        assert node is None or {places[cpu].numa for cpu in cpus} == {node}
    if bind_to == "core":
        assert len(frozenset().union(*dealt)) == sum(map(len, dealt))  # none twice
        assert all(len({places[cpu].core for cpu in cpus}) == cores for cpus in dealt)
