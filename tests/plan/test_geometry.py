"""The geometry solver against a slow, obvious reference that tries every assignment."""

from __future__ import annotations

from itertools import product
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterseg.errors import ClustersegError
from clusterseg.plan.geometry import solve
from clusterseg.plan.model import Host
from clusterseg.spec.model import PlacementSpec, ResourcesSpec

PLACEMENT = PlacementSpec()


def hosts(*cores: int | None) -> list[Host]:
    return [Host(name=f"n{number}", cores=count) for number, count in enumerate(cores, start=1)]


def resources(**given: object) -> ResourcesSpec:
    return ResourcesSpec(**given)  # type: ignore[arg-type]


def every_assignment(asked: ResourcesSpec, cores: list[int]) -> list[tuple[int, ...]]:
    """Ranks a host, for each way in which all that was asked for holds on the first hosts."""
    cpus = 1 if asked.cpus_per_rank == "auto" else asked.cpus_per_rank
    found = []
    for nodes in range(1, len(cores) + 1):
        if asked.nodes not in (None, nodes):
            continue
        for counts in product(range(1, max(cores) + 1), repeat=nodes):
            fits = all(count * cpus <= has for count, has in zip(counts, cores, strict=False))
            equal = asked.ranks_per_node is None or set(counts) == {asked.ranks_per_node}
            if fits and equal and asked.ranks in (None, sum(counts)):
                found.append(counts)
    return found


small = st.none() | st.integers(1, 6)


@settings(max_examples=400)
@given(
    nodes=st.none() | st.integers(1, 4),
    ranks=st.none() | st.integers(1, 12),
    per_node=small,
    cpus=st.just("auto") | st.integers(1, 4),
    cores=st.lists(st.integers(1, 5), min_size=1, max_size=3),
)
def test_solves_what_can_be_solved_and_refuses_the_rest(nodes, ranks, per_node, cpus, cores):
    asked = resources(nodes=nodes, ranks=ranks, ranks_per_node=per_node, cpus_per_rank=cpus)
    possible = every_assignment(asked, cores)
    try:
        solved = solve(asked, hosts(*cores), PLACEMENT)
    except ClustersegError as error:
        assert error.code == "geometry"
        # Where nothing says how many nodes there are, one is taken, not as many as would do.
        assert not possible or (nodes is None and ranks is None and min(map(len, possible)) > 1)
        return
    counts = tuple(solved.hosts.values())
    assert counts in possible
    assert solved.ranks == sum(counts)
    assert solved.nodes == len(counts)
    assert solved.ranks_per_node == (counts[0] if len(set(counts)) == 1 else None)
    if nodes is None:
        assert solved.nodes == min(map(len, possible)), "no more nodes than needed"
    if ranks is not None:
        widest = min(max(each) for each in possible if len(each) == len(counts))
        assert max(counts) == widest, "ranks are spread as evenly as the cores allow"
    if cpus == "auto":
        assert solved.cpus_per_rank == min(
            has // count for has, count in zip(cores, counts, strict=False)
        )
    else:
        assert solved.cpus_per_rank == cpus


@given(
    counts=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    nodes=small,
    ranks=st.none() | st.integers(1, 16),
    per_node=small,
)
def test_named_hosts_decide_and_others_may_only_agree(counts, nodes, ranks, per_node):
    named = {f"n{number}": count for number, count in enumerate(counts, start=1)}
    asked = resources(hosts=named, nodes=nodes, ranks=ranks, ranks_per_node=per_node)
    agrees = (
        nodes in (None, len(counts))
        and ranks in (None, sum(counts))
        and (per_node is None or set(counts) == {per_node})
    )
    known = hosts(*[16] * len(counts))
    if agrees:
        solved = solve(asked, known, PLACEMENT)
        assert solved.hosts == named
        assert solved.cpus_per_rank == 16 // max(counts)
    else:
        with pytest.raises(ClustersegError):
            solve(asked, known, PLACEMENT)


@given(ranks=st.integers(1, 12), cores=st.integers(1, 4), cpus=st.just("auto") | st.integers(1, 5))
def test_oversubscribing_is_never_refused_and_always_said(ranks, cores, cpus):
    asked = resources(ranks=ranks, cpus_per_rank=cpus)
    solved = solve(asked, hosts(cores), PlacementSpec(oversubscribe=True))
    assert solved.ranks == ranks
    assert solved.cpus_per_rank >= 1
    assert solved.oversubscribed == (ranks * solved.cpus_per_rank > cores)
    if solved.oversubscribed:
        with pytest.raises(ClustersegError, match="but"):
            solve(asked, hosts(cores), PLACEMENT)


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        (
            {"nodes": 2, "ranks_per_node": 4, "ranks": 6},
            "nodes × ranks_per_node = 2 × 4 = 8, but ranks = 6",
        ),
        ({"ranks": 6, "ranks_per_node": 4}, "ranks ÷ ranks_per_node = 6 ÷ 4 = 1.5"),
        ({"ranks": 2, "nodes": 3}, "ranks = 2, but nodes = 3: a node would have no rank"),
        ({"nodes": 4}, r"nodes = 4, but 3 hosts can be had (n1, n2, n3)"),
        ({"hosts": {"n1": 4, "n2": 2}, "ranks": 8}, "4 + 2 = 6, but ranks = 8"),
        ({"hosts": {"n1": 4, "n2": 2}, "nodes": 3}, "hosts names 2, but nodes = 3"),
        (
            {"hosts": {"n1": 4, "n2": 2}, "ranks_per_node": 4},
            "hosts gives n2 2, but ranks_per_node = 4",
        ),
        (
            {"ranks_per_node": 4, "cpus_per_rank": 8},
            "ranks × cpus_per_rank = 4 × 8 = 32, but n1 has 16 cores",
        ),
        ({"ranks_per_node": 17}, "ranks on n1 = 17, but it has 16 cores"),
        ({"hosts": {}}, "hosts names no host"),
    ],
)
def test_a_refusal_writes_the_failing_equation_out(given_, message):
    with pytest.raises(ClustersegError) as caught:
        solve(resources(**given_), hosts(16, 16, 16), PLACEMENT)
    assert message in caught.value.message
    assert caught.value.help


@pytest.mark.parametrize(
    ("given_", "cores", "solved", "lines"),
    [
        ({}, [32], ({"n1": 1}, 32), ["nodes = 1: nothing else given"]),
        # The recipe of the seeds: 8 workers on 32 cores.
        ({"ranks": 8}, [32], ({"n1": 8}, 4), ["cpus_per_rank = cores ÷ ranks on n1 = 32 ÷ 8 = 4"]),
        ({"ranks": 2}, [2, 2], ({"n1": 2}, 1), ["nodes = 1: the fewest that hold 2 ranks"]),
        ({"nodes": 2, "ranks": 7}, [8, 8], ({"n1": 4, "n2": 3}, 2), ["7 ranks on 2 nodes"]),
        ({"nodes": 2, "ranks": 6}, [4, 2], ({"n1": 4, "n2": 2}, 1), ["6 ranks on 2 nodes"]),
        (
            {"nodes": 2, "cpus_per_rank": 4},
            [16, 8],
            ({"n1": 4, "n2": 2}, 4),
            ["ranks on n1 = cores ÷ cpus_per_rank = 16 ÷ 4 = 4", "ranks = 6"],
        ),
        (
            {"ranks": 8, "ranks_per_node": 4},
            [8, 8, 8],
            ({"n1": 4, "n2": 4}, 2),
            ["nodes = ranks ÷ ranks_per_node = 8 ÷ 4 = 2"],
        ),
        ({"hosts": {"n1": 2, "far": 4}}, [8], ({"n1": 2, "far": 4}, 1), ["cores of far are not"]),
    ],
)
def test_what_is_solved_is_explained(given_, cores, solved, lines):
    geometry = solve(resources(**given_), hosts(*cores), PLACEMENT)
    assert (geometry.hosts, geometry.cpus_per_rank) == solved
    explained = "\n".join(geometry.explanation)
    for line in lines:
        assert line in explained


def test_many_ranks_on_many_unequal_hosts():
    named = {f"n{number}": 7 + number % 3 for number in range(1250)}
    geometry = solve(resources(hosts=named), [], PLACEMENT)
    assert geometry.ranks == sum(named.values())
    spread = solve(resources(nodes=1250, ranks=10_000), hosts(*[8] * 1250), PLACEMENT)
    assert spread.ranks_per_node == 8


TWO_SOCKETS = [Host(name="n1", cores=32, sockets=2), Host(name="n2", cores=32, sockets=2)]


@pytest.mark.parametrize(
    ("given_", "placement", "cpus", "line"),
    [
        ({"ranks_per_node": 8}, {}, 4, "cores ÷ ranks on n1 = 32 ÷ 8 = 4"),
        (
            {"ranks_per_node": 3},
            {},
            8,
            "cpus_per_rank = 8, less than cores ÷ ranks on n1 = 32 ÷ 3 = 10: a rank's cores are "
            "those of one socket",
        ),
        ({"ranks_per_node": 3}, {"bind_to": "none"}, 10, "= 32 ÷ 3 = 10"),
        ({"ranks_per_node": 5}, {"map_by": "core"}, 4, "less than cores ÷ ranks"),
        ({"hosts": {"n1": 1, "n2": 3}}, {}, 8, "on n2 = 32 ÷ 3"),
        ({"nodes": 2, "ranks": 3}, {}, 16, "cores ÷ ranks on n1 = 32 ÷ 2 = 16"),
    ],
)
def test_auto_stays_on_a_socket(given_, placement, cpus, line):
    geometry = solve(resources(**given_), TWO_SOCKETS, PlacementSpec(**placement))
    assert geometry.cpus_per_rank == cpus
    assert line in "\n".join(geometry.explanation)
    assert not geometry.whole_hosts


@pytest.mark.parametrize("cpus", ["auto", 32])
def test_one_rank_a_host_has_the_whole_of_it(cpus):
    geometry = solve(resources(nodes=2, cpus_per_rank=cpus), TWO_SOCKETS, PLACEMENT)
    assert (geometry.cpus_per_rank, geometry.whole_hosts) == (32, True)
    assert geometry.hosts == {"n1": 1, "n2": 1}


def test_one_rank_that_is_bound_to_a_socket_has_its_cores():
    geometry = solve(resources(nodes=1), TWO_SOCKETS, PlacementSpec(bind_to="socket"))
    assert (geometry.cpus_per_rank, geometry.whole_hosts) == (16, False)


@pytest.mark.parametrize(
    ("given_", "placement", "equation", "way_out"),
    [
        (
            {"ranks_per_node": 3, "cpus_per_rank": 10},
            {},
            "on n1 ranks × cpus_per_rank on socket 0 = 2 × 10 = 20, but it has 16 cores",
            "cpus_per_rank: 8 is the most that fits, or set placement.bind_to: none",
        ),
        (
            {"ranks_per_node": 5, "cpus_per_rank": 5},
            {"map_by": "core"},
            "on n1 local rank 3 would have the cores 15 to 19, but socket 0 ends with 15",
            "cpus_per_rank: 4 is the most that fits, or set placement.map_by: socket, or set",
        ),
        (
            {"ranks_per_node": 1, "cpus_per_rank": 20},
            {},
            "1 × 20 = 20, but it has 16",
            "cpus_per_rank: 16 is the most",
        ),
    ],
)
def test_cores_across_sockets_are_refused_with_what_fits(given_, placement, equation, way_out):
    with pytest.raises(ClustersegError) as caught:
        solve(resources(**given_), TWO_SOCKETS, PlacementSpec(**placement))
    assert equation in caught.value.message
    assert way_out in str(caught.value.help)
    asked = PlacementSpec(**{**placement, "bind_to": "none"})
    assert solve(resources(**given_), TWO_SOCKETS, asked).ranks == given_["ranks_per_node"]


def test_ranks_go_where_sockets_have_room():
    """3 ranks of 10 cores: a host of 2 × 16 cores takes 2 of them, though it has 32."""
    geometry = solve(resources(ranks=3, cpus_per_rank=10), TWO_SOCKETS, PLACEMENT)
    assert geometry.hosts == {"n1": 2, "n2": 1}
    filled = solve(resources(nodes=2, cpus_per_rank=10), TWO_SOCKETS, PLACEMENT)
    assert filled.hosts == {"n1": 2, "n2": 2}
    assert "so many have 10 cores of one socket" in "\n".join(filled.explanation)


@pytest.mark.parametrize(
    ("given_", "counts"),
    [
        ({}, [1, 1]),
        ({"ranks": 5}, [3, 2]),
        ({"ranks_per_node": 4}, [4, 4]),
        ({"cpus_per_rank": 8}, [4, 4]),
        ({"nodes": 2, "ranks": 2}, [1, 1]),
    ],
)
def test_hosts_that_are_only_named_are_all_used(given_, counts):
    asked = resources(hosts={"n2": None, "n1": None}, **given_)
    geometry = solve(asked, TWO_SOCKETS, PLACEMENT)
    assert list(geometry.hosts) == ["n2", "n1"]
    assert list(geometry.hosts.values()) == counts
    assert "nodes = 2: the hosts named" in geometry.explanation


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"nodes": 3}, "hosts names 2, but nodes = 3"),
        ({"ranks": 1}, "ranks = 1, but nodes = 2"),
        ({"hosts": {"n1": 4, "n2": None}}, "hosts gives no ranks for n2, but for others"),
    ],
)
def test_hosts_that_are_only_named_contradict(given_, message):
    asked = resources(**{"hosts": {"n2": None, "n1": None}, **given_})
    with pytest.raises(ClustersegError) as caught:
        solve(asked, TWO_SOCKETS, PLACEMENT)
    assert message in caught.value.message


def test_many_ranks_on_hosts_that_all_differ():
    """10,000 ranks on 1,250 hosts of 600 shapes: some seconds, not a square of them."""
    every = [
        Host(name=f"n{number}", cores=64 + 2 * (number % 600), sockets=2, numa_nodes=4)
        for number in range(1250)
    ]
    asked = resources(nodes=1250, ranks=10_000, cpus_per_rank=4)
    for map_by in ("socket", "numa", "core"):
        start = process_time()
        assert solve(asked, every, PlacementSpec(map_by=map_by)).ranks == 10_000
        assert process_time() - start < 10
