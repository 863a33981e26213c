"""Who a job is that a person gave to sbatch: a requeue keeps it, another sbatch does not."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterseg.cluster.slurm.commands import SlurmMissing, SlurmRefused, SlurmUnreachable
from clusterseg.cluster.slurm.jobs import JobDetail, JobFacts, JobState, job_comment, job_name
from clusterseg.submit.job_identity import (
    PATIENCE,
    Job,
    Known,
    ask,
    fixed_key,
    keep,
    new_key,
    own_environment,
    run_id,
    script_hash,
)

KEY = "0123456789abcdef" * 2
JOB = Job(id="12", cluster="c", uid=0, name="tiny", script="s")
digits = st.text("0123456789abcdef", min_size=12, max_size=12)


class Queue:
    """Slurm with one job, or with an error."""

    def __init__(
        self,
        *,
        id: str = "12",
        comment: str = "",
        name: str = "job.sh",
        error: Exception | None = None,
    ) -> None:
        self.id, self.comment, self.name, self.error = id, comment, name, error
        self.updates: list[str] = []
        self.asked = 0

    def mine(self) -> Sequence[JobFacts]:
        self.asked += 1
        if self.error is not None:
            raise self.error
        key = KEY if self.comment == job_comment(KEY) else None
        state = JobState.RUNNING
        return [
            JobFacts(id="12", number=12, state=state, key=key, name=self.name, submitted=5.0),
            JobFacts(id="13", number=13, state=state, key="f" * 32),
        ]

    def show(self, job_id: str) -> JobDetail | None:
        assert job_id == "12"
        if self.error is not None:
            raise self.error
        return JobDetail(id=self.id, number=12, state=JobState.RUNNING, comment=self.comment)

    def update(self, job_id: str, *settings: str) -> None:
        self.updates += settings


def test_the_key_is_in_the_comment_or_in_the_name() -> None:
    assert ask(JOB, Queue(comment=job_comment(KEY))) == Known(KEY, 5.0)
    assert ask(JOB, Queue()) == Known(None, 5.0)
    own = new_key(JOB, "abcdefabcdef")
    assert ask(JOB, Queue(comment="billing", name=job_name("tiny", own))) == Known(own, 5.0)
    assert ask(JOB, Queue(name=job_name("other", own))) == Known(None, 5.0)


def test_a_comment_of_the_person_stays() -> None:
    empty, taken = Queue(), Queue(comment="project 7")
    assert keep(JOB, KEY, empty)
    assert empty.updates == [f"Comment={job_comment(KEY)}"]
    assert keep(JOB, KEY, taken)
    assert taken.updates == [f"JobName={job_name('tiny', KEY)}"]


def test_without_slurms_programs_it_is_not_asked_twice() -> None:
    for error in (SlurmMissing("no squeue", code="x"), SlurmRefused("squeue", "no")):
        queue = Queue(error=error)
        assert ask(JOB, queue, pause=lambda seconds: pytest.fail("waits")) is None
        assert queue.asked == 1


def test_a_silent_controller_is_waited_for() -> None:
    now = 0.0

    def pause(seconds: float) -> None:
        nonlocal now
        now += seconds

    queue = Queue(error=SlurmUnreachable("squeue", "silent"))
    assert ask(JOB, queue, clock=lambda: now, pause=pause) is None
    assert now >= PATIENCE


OUTER = {"SLURM_JOB_ID": "12", "SLURM_ARRAY_JOB_ID": "9", "SLURM_ARRAY_TASK_ID": "7", "A": "x"}


@pytest.mark.parametrize(
    ("id", "environ"),
    [
        ("12", {"SLURM_JOB_ID": "12", "A": "x"}),  # the array is that of an outer job
        ("9_7", OUTER),
        ("12_2", OUTER | {"SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "2"}),
    ],
)
def test_which_array_a_job_is_of(id: str, environ: dict[str, str]) -> None:
    assert own_environment(OUTER, Queue(id=id)) == environ


def test_without_slurms_word_the_environment_is_believed() -> None:
    assert own_environment(OUTER, Queue(error=SlurmMissing("no scontrol", code="x"))) == OUTER
    assert own_environment({"A": "x"}, Queue(error=AssertionError("outside of a job"))) == {
        "A": "x"
    }


@given(digits, digits)
def test_a_key_follows_from_its_digits(one: str, other: str) -> None:
    assert new_key(JOB, one)[:12] == one
    assert len(new_key(JOB, one)) == 32
    assert (new_key(JOB, one) == new_key(JOB, other)) == (one == other)


def test_what_parts_jobs_of_one_id() -> None:
    ids = {
        run_id(job, fixed_key(job, number))
        for job in (
            JOB,
            Job("12", "d", 0, "tiny", "s"),
            Job("13", "c", 0, "tiny", "s"),
            Job("12", "c", 1, "tiny", "s"),
            Job("12", "c", 0, "tiny", "t"),
        )
        for number in (0, 1)
    }
    assert len(ids) == 10
    assert run_id(JOB, fixed_key(JOB, 0)).startswith("tiny-j12-")
    assert script_hash("a", ["b"]) != script_hash("a", []) != script_hash("b", [])
