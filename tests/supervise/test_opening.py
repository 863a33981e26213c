"""Which allocations a plan is started in."""

from __future__ import annotations

import pytest

from clusterseg.cluster.slurm.allocation import Allocation
from clusterseg.errors import ClustersegError
from clusterseg.plan.planner import place
from clusterseg.supervise.opening import refuse_unless_room
from tests.plan.plans import slurm_plan


def allocation(**cpus: int) -> Allocation:
    tasks = dict.fromkeys(("n1", "n2"), 1)
    return Allocation(job_id="12", number=12, restart_count=0, tasks=tasks, cpus=cpus)


TWO_BY_TWO = "resources: {nodes: 2, ranks_per_node: 2, cpus_per_rank: 2}\n"


@pytest.mark.parametrize(
    ("cpus", "short"),
    [
        ({"n1": 4, "n2": 4}, None),
        ({"n1": 8, "n2": 8}, None),  # hardware threads, or whole nodes
        ({}, None),  # nothing is known
        ({"n1": 4, "n2": 3}, "n2 gives this job 3 cores, and the plan runs 2 ranks × 2 cores"),
        ({"n1": 1, "n2": 1}, "n1 gives this job 1 core"),
    ],
)
def test_an_allocation_with_too_few_cores_is_refused(
    cpus: dict[str, int], short: str | None
) -> None:
    plan = place(slurm_plan(TWO_BY_TWO), ["n1", "n2"])
    if short is None:
        refuse_unless_room(plan, allocation(**cpus))
    else:
        with pytest.raises(ClustersegError, match=short):
            refuse_unless_room(plan, allocation(**cpus))


@pytest.mark.parametrize(
    "wish", ["launcher_args: [--overcommit]", "placement: {oversubscribe: true}"]
)
def test_ranks_that_shall_share_cores_may(wish: str) -> None:
    plan = place(slurm_plan(f"{TWO_BY_TWO}{wish}\n"), ["n1", "n2"])
    refuse_unless_room(plan, allocation(n1=1, n2=1))
