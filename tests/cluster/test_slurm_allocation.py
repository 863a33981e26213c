"""What a process in a job knows: from its variables, and from what Slurm prints."""

from __future__ import annotations

import pytest

from clusterseg.cluster.slurm.allocation import (
    Allocation,
    Life,
    read_lives,
    read_lost_nodes,
)
from clusterseg.cluster.slurm.jobs import JobState
from clusterseg.errors import ClustersegError

JOB = {
    "SLURM_JOB_ID": "12",
    "SLURM_JOB_NODELIST": "n[1-3]",
    "SLURM_TASKS_PER_NODE": "2(x2),1",
    "SLURM_JOB_CPUS_PER_NODE": "4(x3)",
    "SLURM_JOB_PARTITION": "low",
}


def test_a_job() -> None:
    job = Allocation.from_environ(JOB)
    assert job is not None
    assert (job.job_id, job.number, job.restart_count) == ("12", 12, 0)
    assert job.tasks == {"n1": 2, "n2": 2, "n3": 1}
    assert job.cpus == {"n1": 4, "n2": 4, "n3": 4}
    assert job.hosts == ["n1", "n2", "n3"]


def test_cores_of_which_slurm_says_nothing_are_not_made_up() -> None:
    job = Allocation.from_environ({k: v for k, v in JOB.items() if "CPUS" not in k})
    assert job is not None
    assert job.cpus == {}
    assert job.hosts == ["n1", "n2", "n3"]


def test_a_task_of_an_array_is_no_whole_array() -> None:
    array = {"SLURM_ARRAY_JOB_ID": "10", "SLURM_ARRAY_TASK_ID": "3", "SLURM_RESTART_COUNT": "2"}
    job = Allocation.from_environ(JOB | array)
    assert job is not None
    assert (job.job_id, job.number, job.restart_count) == ("10_3", 12, 2)


@pytest.mark.parametrize("missing", ["SLURM_JOB_ID", "SLURM_JOB_NODELIST"])
def test_outside_of_a_job(missing: str) -> None:
    assert Allocation.from_environ({k: v for k, v in JOB.items() if k != missing}) is None


@pytest.mark.parametrize("id", ["", "12; rm -rf /", "-1", "12_3", "x"])
def test_an_id_that_is_none(id: str) -> None:
    assert Allocation.from_environ(JOB | {"SLURM_JOB_ID": id}) is None


@pytest.mark.parametrize(
    "wrong", [{"SLURM_JOB_NODELIST": "n[1-"}, {"SLURM_TASKS_PER_NODE": "2(x2)"}]
)
def test_variables_that_contradict_each_other(wrong: dict[str, str]) -> None:
    with pytest.raises(ClustersegError, match="make no sense"):
        Allocation.from_environ(JOB | wrong)


def test_lost_nodes() -> None:
    lines = [
        "NodeName=n1 Arch=x86_64 State=MIXED ThreadsPerCore=1 Reason=State=DOWN",
        "NodeName=n2 State=DOWN* ThreadsPerCore=1",
        "NodeName=n3 State=MIXED+DRAIN ThreadsPerCore=1",
        "NodeName=n4 State=MIXED* ThreadsPerCore=1",
        "NodeName=n5 State=ALLOCATED+NOT_RESPONDING ThreadsPerCore=1",
        "NodeName=n6 State=IDLE+FAIL",
        "junk",
    ]
    assert read_lost_nodes(lines) == ["n2", "n4", "n5", "n6"]


def test_lives_in_order_without_the_present_one() -> None:
    lines = [
        "12|COMPLETED|2026-11-21T03:10:00|n2",
        "12|PREEMPTED|2026-11-21T03:00:00|n1",
        "12|RUNNING|2026-11-21T03:20:00|n1",
        "12.batch|CANCELLED|2026-11-21T03:00:00|n1",
        "13|TIMEOUT|2026-11-21T03:00:00|n1",
        "12|CANCELLED by 1000|2026-11-21T03:15:00|n1",
        "junk",
    ]
    assert read_lives(lines, "12") == [
        Life(JobState.PREEMPTED, "2026-11-21T03:00:00", "n1"),
        Life(JobState.COMPLETED, "2026-11-21T03:10:00", "n2"),
        Life(JobState.CANCELLED, "2026-11-21T03:15:00", "n1"),
    ]
