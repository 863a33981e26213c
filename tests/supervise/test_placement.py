"""What the ranks report beside what was planned."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from clusterseg.plan.model import Plan
from clusterseg.runs.records import RankStart
from clusterseg.supervise.placement import check_placement
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
    assert "ranks 0 and 2 on n1 share processors 0, 1" in found.doubtful


def test_fewer_cores(plan: Plan) -> None:
    found = check_placement(plan, starts(cpus={3: [2]}))
    assert found.doubtful == ("rank 3 on n2.site has 1 processors, 2 cores were planned",)


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


def test_many_findings_are_few_lines(plan: Plan) -> None:
    many = [
        RankStart(t=0.0, rank=rank, attempt=0, world_size=4, host="n1", cpus=[0])
        for rank in range(64)
    ]
    found = check_placement(plan, many)
    assert len(found.doubtful) == 9
    assert found.doubtful[-1].startswith("and ")


@pytest.mark.parametrize("hosts", [{"localhost": 4}, {"{host0}": 4}])
def test_symbolic_hosts(plan: Plan, hosts: dict[str, int]) -> None:
    symbolic = msgspec.structs.replace(plan, hosts=hosts)
    assert not check_placement(
        symbolic, starts(host=dict.fromkeys(range(4), "x"), cpus=_apart())
    ).doubtful
    assert check_placement(symbolic, starts()).doubtful


def _apart() -> dict[int, list[int]]:
    return {rank: [2 * rank, 2 * rank + 1] for rank in range(4)}
