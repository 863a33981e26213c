"""What the ranks report beside what was planned."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

import msgspec
import pytest

from clusterseg.plan.model import Plan
from clusterseg.runs.affinity import CpuPlace
from clusterseg.runs.records import RankStart
from clusterseg.supervise.placement import check_placement, check_world
from tests.supervise.runs import make_run


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    run = make_run(tmp_path)
    made = msgspec.json.decode(run.submission(0).plan.read_bytes(), type=Plan)
    geometry = msgspec.structs.replace(made.geometry, cpus_per_rank=2, oversubscribed=False)
    return msgspec.structs.replace(made, hosts={"n1": 2, "n2.site": 2}, ranks=4, geometry=geometry)


def starts(**change: object) -> list[RankStart]:
    """As planned, but for `change`: {field: {rank: value}}."""
    ranks = []
    for rank in range(4):
        values: dict[str, object] = {
            "host": f"n{1 + rank // 2}.site",
            "world_size": 4,
            "cpus": [2 * (rank % 2), 2 * (rank % 2) + 1],
        }
        values |= {name: by_rank[rank] for name, by_rank in change.items() if rank in by_rank}  # type: ignore[operator, index]
        ranks.append(RankStart(t=0.0, rank=rank, attempt=0, **values))  # type: ignore[arg-type]
    return ranks


def test_as_planned(plan: Plan) -> None:
    found = check_placement(plan, starts())
    assert (found.wrong, found.doubtful) == ((), ())


def test_singletons_are_wrong(plan: Plan) -> None:
    found = check_placement(plan, starts(world_size=dict.fromkeys(range(4), 1)))
    assert found.wrong == ("4 of 4 ranks see a world of 1, the plan has 4 ranks",)


def test_all_on_one_host(plan: Plan) -> None:
    """Open MPI 5 with flags of Open MPI 4 once ran a three-node job on one."""
    found = check_placement(plan, starts(host=dict.fromkeys(range(4), "n1")))
    assert found.doubtful[0] == "the ranks run on {n1: 4}, the plan says {n1: 2, n2.site: 2}"
    assert "ranks 0 and 2 on n1 share cores 0-1; each was to have its own" in found.doubtful
    assert found.ranks == (0, 1, 2, 3)


def test_fewer_cores(plan: Plan) -> None:
    found = check_placement(plan, starts(cpus={3: [2]}))
    assert found.doubtful == ("rank 3 on n2.site has 1 core (processors 2), 2 were planned",)


def test_cores_of_unbound_ranks_are_nobodys(plan: Plan) -> None:
    shared = starts(cpus={rank: [0, 1] for rank in range(4)})
    assert check_placement(plan, shared).doubtful
    placement = msgspec.structs.replace(plan.spec.placement, bind_to="none")
    unbound = msgspec.structs.replace(
        plan, spec=msgspec.structs.replace(plan.spec, placement=placement)
    )
    assert not check_placement(unbound, shared).doubtful
    many = msgspec.structs.replace(
        plan, geometry=msgspec.structs.replace(plan.geometry, oversubscribed=True)
    )
    assert not check_placement(many, shared).doubtful


def test_accelerators_that_we_deal_out_have_one_rank_each(plan: Plan) -> None:
    """Local ranks that begin again on a host, as where Hydra is told of it twice."""
    dealt = msgspec.structs.replace(
        plan, environment={**plan.environment, "CLUSTERSEG_DEVICES": "cuda:2"}
    )
    assert not check_placement(dealt, starts(device=dict(enumerate(["0,1", "2,3"] * 2)))).doubtful
    found = check_placement(dealt, starts(device=dict(enumerate(["0,1", "2,3", "2,3", "2,3"]))))
    said = "ranks 2 and 3 on n2.site share accelerators 2, 3; each was to have its own"
    assert (found.doubtful, found.ranks) == ((said,), (2, 3))
    # Slurm may call the only one that a task sees `0` in every task.
    theirs = msgspec.structs.replace(dealt, environment={"CLUSTERSEG_DEVICES": "cuda"})
    assert not check_placement(theirs, starts(device=dict.fromkeys(range(4), "0"))).doubtful


def test_many_findings_are_few_lines(plan: Plan) -> None:
    many = [
        RankStart(t=0.0, rank=rank, attempt=0, world_size=4, host="n1", cpus=[0])
        for rank in range(64)
    ]
    found = check_placement(plan, many)
    assert found.doubtful[-2:] == (
        "and 60 more ranks have fewer cores than planned",
        "ranks 0-63 on n1 share core 0; each was to have its own",
    )
    assert len(found.doubtful) == 6
    assert found.ranks == tuple(range(64))


@pytest.mark.parametrize(
    "hosts", [{"localhost": 4}, {"{host0}": 4}, {"10.0.0.1": 4}, {"fd00::1": 4}]
)
def test_hosts_without_a_name_of_their_own(plan: Plan, hosts: dict[str, int]) -> None:
    symbolic = msgspec.structs.replace(plan, hosts=hosts)
    assert not check_placement(
        symbolic, starts(host=dict.fromkeys(range(4), "x"), cpus=_apart())
    ).doubtful
    assert check_placement(symbolic, starts()).doubtful


def _apart() -> dict[int, list[int]]:
    return {rank: [2 * rank, 2 * rank + 1] for rank in range(4)}


def test_hosts_by_name_and_by_address(plan: Plan) -> None:
    both = msgspec.structs.replace(plan, hosts={"N1": 2, "10.0.0.2": 2})
    assert check_placement(both, starts()).doubtful == ()
    other = starts(host=dict.fromkeys((1, 2, 3), "n2"), cpus=_apart())
    assert check_placement(both, other).doubtful == (
        "the ranks run on {n1: 1, n2: 3}, the plan says {10.0.0.2: 2, N1: 2}",
    )


def test_of_many_hosts_those_that_differ_are_named(plan: Plan) -> None:
    hosts = {f"n{number}": 1 for number in range(1000)}
    large = msgspec.structs.replace(plan, hosts=hosts, ranks=1000)
    ranks = [
        RankStart(t=0.0, rank=rank, attempt=0, world_size=1000, host=f"n{max(rank, 1)}")
        for rank in range(1000)
    ]
    found = check_placement(large, ranks)
    assert found.doubtful == ("the ranks run on {n1: 2}, the plan says {n0: 1, n1: 1}",)
    assert found.ranks == (0, 1)


# --- cores ---------------------------------------------------------------------------------

SMT = 8  # cores of the machine of these tests, in two sockets; CPU n + 8 is the second thread


def bound(*cores: list[int], threads: int = 2, host: str = "n1") -> list[RankStart]:
    """Ranks on one host, each on the first `threads` threads of its cores."""
    return [
        RankStart(
            t=0.0, rank=rank, attempt=0, world_size=len(cores), host=host, local_rank=rank,
            cpus=[core + SMT * thread for thread in range(threads) for core in of_rank],
            cores=[f"{core * 2 // SMT}.{core}" for core in of_rank],
            sockets=sorted({core * 2 // SMT for core in of_rank}),
            numa=sorted({core * 4 // SMT for core in of_rank}),
        )
        for rank, of_rank in enumerate(cores)
    ]  # fmt: skip


def one_host(
    plan: Plan, ranks: int, cpus: int, bind_to: Literal["core", "socket", "numa"] = "core"
) -> Plan:
    return msgspec.structs.replace(
        plan,
        hosts={"n1": ranks},
        ranks=ranks,
        geometry=msgspec.structs.replace(plan.geometry, cpus_per_rank=cpus),
        spec=msgspec.structs.replace(
            plan.spec,
            placement=msgspec.structs.replace(plan.spec.placement, bind_to=bind_to),
        ),
    )


@pytest.mark.parametrize(
    ("cpus", "cores", "threads", "wrong"),
    [
        (2, ([0, 1], [4, 5], [2, 3], [6, 7]), 2, {}),
        (2, ([0, 1], [4, 5], [2, 3], [6, 7]), 1, {}),  # a thread of each is enough
        (
            2,
            ([0, 1], [2]),
            2,
            {1: "rank 1 on n1 has 1 core (processors 2, 10), 2 were planned"},
        ),
        (
            2,
            ([0, 1], [3, 4], [2, 5]),
            2,
            {
                1: "rank 1 on n1 is spread over the sockets 0-1 (cores 3-4), one was planned",
                2: "rank 2 on n1 is spread over the sockets 0-1 (cores 2, 5), one was planned",
            },
        ),
        (8, (list(range(8)),), 2, {}),  # no socket has so many
        (5, ([1, 2, 3, 4, 5],), 2, {}),
    ],
)
def test_physical_cores_and_sockets(
    plan: Plan, cpus: int, cores: tuple[list[int], ...], threads: int, wrong: dict[int, str]
) -> None:
    found = check_placement(one_host(plan, len(cores), cpus), bound(*cores, threads=threads))
    assert dict(zip(found.ranks, found.doubtful, strict=True)) == wrong


def test_two_threads_of_one_core_are_one_core(plan: Plan) -> None:
    first, second = bound([0, 1], [0, 1], threads=1)
    second = msgspec.structs.replace(second, cpus=[SMT, SMT + 1])
    assert not set(first.cpus) & set(second.cpus)
    found = check_placement(one_host(plan, 2, 2), [first, second])
    assert found.doubtful == ("ranks 0 and 1 on n1 share cores 0-1; each was to have its own",)


def test_ranks_of_an_older_clusterseg_say_no_cores(plan: Plan) -> None:
    old = [
        msgspec.structs.replace(start, cores=[], sockets=[], numa=[])
        for start in bound([0, 1], [1, 2], threads=1)
    ]
    found = check_placement(one_host(plan, 2, 2), old, ground={"n1": places(8)})
    assert found.doubtful == ("ranks 0 and 1 on n1 share core 1; each was to have its own",)


def places(cores: int, threads: int = 2) -> dict[int, CpuPlace]:
    return {
        core + SMT * thread: CpuPlace(core * 2 // SMT, core, core * 4 // SMT)
        for core in range(cores)
        for thread in range(threads)
    }


def test_the_only_rank_of_a_host_may_be_on_all_its_sockets(plan: Plan) -> None:
    """Beside a smaller host it has fewer cores than its own would give it, and is not bound."""
    job = one_host(plan, 1, 4)
    whole = msgspec.structs.replace(job.geometry, whole_hosts=True)
    lone = bound(list(range(8)))
    assert check_placement(job, lone, ground={"n1": places(8)}).doubtful
    job = msgspec.structs.replace(job, geometry=whole)
    assert not check_placement(job, lone, ground={"n1": places(8)}).doubtful


def test_a_socket_may_be_known_to_be_large_enough_from_its_host_alone(plan: Plan) -> None:
    lone = bound([3, 4])
    assert check_placement(one_host(plan, 1, 2), lone).doubtful == ()  # who knows
    found = check_placement(one_host(plan, 1, 2), lone, ground={"N1.site": places(8)})
    assert found.doubtful == (
        "rank 0 on n1 is spread over the sockets 0-1 (cores 3-4), one was planned",
    )


def test_cores_that_the_job_does_not_have(plan: Plan) -> None:
    """Under `taskset`, or without a cgroup, launchers bind to the host's first cores."""
    ranks = bound([0, 1], [2, 3])
    mine = {cpu: place for cpu, place in places(8).items() if place.core >= 2}
    two = one_host(plan, 2, 2)
    found = check_placement(two, ranks, ground={"n1": mine})
    assert found.doubtful == ("rank 0 on n1 runs on cores 0-1, but this job has cores 2-7 there",)
    assert found.ranks == (0,)
    one_thread = {cpu: place for cpu, place in places(8).items() if cpu < SMT}
    assert check_placement(two, ranks, ground={"n1": one_thread}).doubtful == ()
    assert check_placement(two, ranks, ground={"n2": mine}).doubtful == ()


def test_ranks_bound_to_a_socket_share_it_as_long_as_it_is_large_enough(plan: Plan) -> None:
    sockets = bound([0, 1, 2, 3], [4, 5, 6, 7], [0, 1, 2, 3], [4, 5, 6, 7])
    assert check_placement(one_host(plan, 4, 2, "socket"), sockets).doubtful == ()
    found = check_placement(one_host(plan, 4, 3, "socket"), sockets)
    assert found.doubtful == (
        "ranks 0 and 2 on n1 share cores 0-3, and need 2 × 3 = 6",
        "ranks 1 and 3 on n1 share cores 4-7, and need 2 × 3 = 6",
    )


def test_a_rank_bound_to_a_numa_node_is_on_one(plan: Plan) -> None:
    nodes = bound([0, 1], [2, 3], [4, 5], [6, 7])
    assert check_placement(one_host(plan, 4, 2, "numa"), nodes).doubtful == ()
    halves = bound([1, 2], [4, 5])
    found = check_placement(one_host(plan, 2, 2, "numa"), halves)
    assert found.doubtful == (
        "rank 0 on n1 is spread over the NUMA nodes 0-1 (cores 1-2), one was planned",
    )
    assert check_placement(one_host(plan, 2, 2, "core"), halves).doubtful == ()


def test_sockets_that_the_kernel_does_not_know(plan: Plan) -> None:
    """It calls them -1 on some machines."""
    ranks = [
        msgspec.structs.replace(start, cores=[f"-1.{cpu}" for cpu in start.cpus], sockets=[-1])
        for start in bound([0, 1], [2, 3], threads=1)
    ]
    assert check_placement(one_host(plan, 2, 2), ranks).doubtful == ()


@pytest.mark.parametrize("shared", [False, True])
def test_thousands_of_ranks_on_a_host_are_checked_at_once(plan: Plan, shared: bool) -> None:
    count, cpus = 2000, 4
    ranks = [
        RankStart(
            t=0.0, rank=rank, attempt=0, world_size=count, host="n1", sockets=[0], numa=[0],
            cpus=[cpus * (rank // 2 if shared else rank) + cpu for cpu in range(cpus)],
            cores=[f"0.{cpus * (rank // 2 if shared else rank) + cpu}" for cpu in range(cpus)],
        )
        for rank in range(count)
    ]  # fmt: skip
    begun = time.process_time()
    found = check_placement(one_host(plan, count, cpus), ranks)
    assert time.process_time() - begun < 0.5
    assert len(found.ranks) == (count if shared else 0)


def test_the_world_is_judged_before_all_have_started(plan: Plan) -> None:
    assert check_world(plan, starts()[:1]).wrong == ()
    found = check_world(plan, starts(world_size={0: 1})[:1])
    assert found.wrong == ("1 of 1 rank sees a world of 1, the plan has 4 ranks",)
