"""Ranks on one host against a reference that hands out its cores one by one."""

from __future__ import annotations

from itertools import count as counting
from time import process_time
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterseg.plan.layout import HostLayout, even_shape, lay_out, most_cpus, most_ranks, shape_of
from clusterseg.plan.model import Host, Shape
from clusterseg.spec.fields import BindTo, MapBy

TWO_SOCKETS: Shape = ((16,), (16,))

# Sockets of unequal size are what a cpuset leaves.
nodes = st.lists(st.integers(1, 16), min_size=1, max_size=4).map(tuple)
shapes = st.lists(nodes, min_size=1, max_size=4).map(tuple)
maps = st.sampled_from(get_args(MapBy))
binds = st.sampled_from(get_args(BindTo))

Core = tuple[int, int, int]  # socket, NUMA node of the host, core of the host


def cores_of(shape: Shape) -> list[Core]:
    number, node, found = counting(), 0, []
    for socket, numa in enumerate(shape):
        for cores in numa:
            found += [(socket, node, next(number)) for _ in range(cores)]
            node += 1
    return found


def hand_out(shape: Shape, count: int, cpus: int, map_by: str, bind_to: str) -> list | None:
    """By rank, the cores that it may run on (None: any); None if it can't be."""
    free = cores_of(shape)
    if count * cpus > len(free):
        return None
    if bind_to == "none":
        return [None] * count
    whole = list(free)
    turns = dict.fromkeys(counting_of(shape, "socket"), 0)
    got = []
    for rank in range(count):
        if map_by in ("core", "node"):
            taken = free[:cpus]
        else:
            parts = counting_of(shape, map_by)
            turn = parts[rank % len(parts)]
            there = [core for core in whole if core[map_by == "numa"] == turn]
            if map_by == "socket" and bind_to == "numa":
                own = sorted({core[1] for core in there})
                there = [core for core in there if core[1] == own[turns[turn] % len(own)]]
                turns[turn] += 1
            elif map_by == "numa" and bind_to == "socket":
                there = [core for core in whole if core[0] == there[0][0]]
            taken = [core for core in there if core in free][:cpus]
        if len(taken) < cpus:
            return None
        narrow = bind_to == "numa" or (map_by == "numa" and bind_to == "core")
        part = {core[narrow] for core in taken}
        if len(part) > 1:
            return None
        free = [core for core in free if core not in taken]
        got.append(taken if bind_to == "core" else [core for core in whole if core[narrow] in part])
    return got


def counting_of(shape: Shape, kind: str) -> list[int]:
    return sorted({core[kind == "numa"] for core in cores_of(shape)})


def only(found: set[int]) -> int | None:
    return next(iter(found)) if len(found) == 1 else None


@settings(max_examples=600, deadline=None)
@given(shapes, st.integers(1, 40), st.integers(1, 20), maps, binds)
def test_ranks_stand_where_their_cores_are(shape, count, cpus, map_by, bind_to):
    laid_out = lay_out(shape, count, cpus, map_by, bind_to)
    got = hand_out(shape, count, cpus, map_by, bind_to)
    if got is None:
        assert isinstance(laid_out, str), (laid_out, shape)
        assert "but" in laid_out
        return
    assert isinstance(laid_out, HostLayout), laid_out
    assert laid_out.cpus == cpus
    for rank, own in enumerate(got):
        assert laid_out.sockets[rank] == (own and only({core[0] for core in own}))
        assert laid_out.numa[rank] == (own and only({core[1] for core in own}))


@settings(max_examples=200, deadline=None)
@given(shapes, st.integers(1, 20), maps, binds)
def test_the_most_cores_and_ranks_are_the_most(shape, number, map_by, bind_to):
    total = len(cores_of(shape))

    def fits(count: int, cpus: int) -> bool:
        return hand_out(shape, count, cpus, map_by, bind_to) is not None

    widest = max((cpus for cpus in range(1, total // number + 1) if fits(number, cpus)), default=0)
    assert most_cpus(shape, number, map_by, bind_to) == widest
    most = max((count for count in range(1, total // number + 1) if fits(count, number)), default=0)
    assert most_ranks(shape, number, map_by, bind_to) == most


@pytest.mark.parametrize(
    ("count", "map_by", "cpus"),
    [(8, "socket", 4), (3, "socket", 8), (1, "socket", 16), (5, "core", 4), (2, "core", 16)],
)
def test_what_fits_on_two_sockets_of_16_cores(count, map_by, cpus):
    assert most_cpus(TWO_SOCKETS, count, map_by, "core") == cpus


@pytest.mark.parametrize(
    ("count", "cpus", "map_by", "equation"),
    [
        (3, 10, "socket", "on socket 0 = 2 × 10 = 20, but it has 16 cores"),
        (3, 10, "core", "local rank 1 would have the cores 10 to 19, but socket 0 ends with 15"),
        (9, 4, "socket", "ranks × cpus_per_rank = 9 × 4 = 36, but it has 32 cores"),
    ],
)
def test_a_refusal_says_which_equation_fails(count, cpus, map_by, equation):
    assert equation in str(lay_out(TWO_SOCKETS, count, cpus, map_by, "core"))


def test_sockets_are_dealt_out_in_turn():
    laid_out = lay_out(TWO_SOCKETS, 5, 3, "socket", "core")
    assert isinstance(laid_out, HostLayout)
    assert laid_out.sockets == (0, 1, 0, 1, 0)


@given(st.integers(1, 256), st.integers(1, 8), st.integers(1, 32))
def test_an_even_shape_has_all_cores_and_no_empty_part(cores, sockets, numa_nodes):
    shape = even_shape(cores, sockets, numa_nodes)
    flat = [own for numa in shape for own in numa]
    assert sum(flat) == cores
    assert min(flat) >= 1
    assert len(shape) == min(sockets, cores)
    sums = [sum(numa) for numa in shape]
    assert max(sums) - min(sums) <= 1


def test_a_host_without_a_shape_is_taken_to_be_even():
    assert shape_of(Host(name="n", cores=32, sockets=2, numa_nodes=4)) == ((8, 8), (8, 8))
    assert shape_of(Host(name="n", cores=6, sockets=2, shape=((4,), (2,)))) == ((4,), (2,))


def test_a_host_of_many_ranks_is_laid_out_at_once():
    """Time goes up with the ranks, not with their square."""
    shape = even_shape(2000, 4, 16)
    start = process_time()
    for map_by in get_args(MapBy):
        assert isinstance(lay_out(shape, 2000, 1, map_by, "core"), HostLayout)
    assert process_time() - start < 5
