"""The protocol of submitting against a model of Slurm that loses, delays and duplicates."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clusterseg.cluster.slurm.jobs import JobFacts, JobState
from clusterseg.errors import ClustersegError
from clusterseg.submit.queueing_errors import Outdated
from clusterseg.submit.slurm_protocol import (
    QUIET,
    SETTLE,
    Ask,
    Cancel,
    Done,
    Gone,
    Known,
    Record,
    Refuse,
    Release,
    Sighting,
    Submit,
    next_step,
    sightings,
    task_sightings,
)
from clusterseg.submit.slurm_queueing import NotSubmitted, OutOfPatience, Wanted, have_queued
from tests.submit.slurm_model import NONE, ClientKilled, ModelJob, SlurmModel

KEY = "0123456789abcdef" * 2
MOST_CLIENTS = 12


class Story:
    """One run's submission: clients that may be killed, and each time a person who resumes."""

    def __init__(self, model: SlurmModel) -> None:
        self.model = model
        self.recorded: str | None = None

    def client(self, *, first: bool) -> str:
        """How one client ends: "done", "killed", "refused", "patience", "error"."""
        wanted = Wanted(
            name="name",
            key=KEY,
            options=("--nodes=1",),
            script=Path("batch.sh"),
            directory=Path("/"),
            recorded=self.recorded,
            doubt=not first,
        )
        try:
            job_id = have_queued(
                wanted,
                self.model,
                self._record,
                clock=lambda: self.model.now,
                pause=self.model.pause,
            )
        except ClientKilled:
            return "killed"
        except OutOfPatience:
            return "patience"
        except NotSubmitted as error:
            return "refused" if error.clean else "error"
        except ClustersegError:
            return "error"
        assert self.recorded == job_id
        return "done"

    def _record(self, job_id: str) -> None:
        when = self.model.draw((NONE, "killed before recording", "killed after recording"))
        if when == "killed before recording":
            raise ClientKilled
        self.recorded = job_id
        if when == "killed after recording":
            raise ClientKilled

    def tell(self) -> str:
        ends = "not begun"
        for number in range(MOST_CLIENTS):
            ends = self.client(first=number == 0)
            if ends in ("done", "refused"):
                break
        else:
            self.model.draw = lambda kinds: kinds[0]  # the faults are over
            ends = self.client(first=False)
        return ends


def judge(story: Story, ends: str) -> None:
    """Exactly one effective run, or none and the person knows it."""
    model = story.model
    model.draw = lambda kinds: kinds[0]
    model.finish()
    assert not model.twice, "two jobs were released at one time"
    assert not model.stranger_released
    starts = model.starts.count(KEY)
    if ends == "refused":
        assert starts == 0
        assert not [job for job in model.jobs.values() if job.key == KEY and not job.held]
    else:
        assert ends == "done"
        assert starts == 1
    # What is left of the others can't run.
    for job in model.jobs.values():
        if job.key == KEY and job.state is JobState.PENDING:
            assert job.held


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_one_effective_run_whatever_happens(data: st.DataObject) -> None:
    def draw(kinds: Sequence[str]) -> str:
        return data.draw(st.sampled_from(kinds))

    story = Story(SlurmModel(draw))
    judge(story, story.tell())


# Every single fault, and every pair, at each point where one can happen: faults are scripted by
# their position among the draws.
POINTS = 9


def scripted(script: dict[int, int]) -> SlurmModel:
    count = itertools.count()

    def draw(kinds: Sequence[str]) -> str:
        return kinds[script.get(next(count), 0) % len(kinds)]

    return SlurmModel(draw)


def test_every_pair_of_faults() -> None:
    told = 0
    for first, second in itertools.combinations(range(POINTS), 2):
        for one, other in itertools.product(range(10), repeat=2):
            story = Story(scripted({first: one, second: other}))
            judge(story, story.tell())
            told += 1
    assert told == 3600


def test_the_proof_can_fail() -> None:
    """Planted: jobs that are not held. One that is accepted late then is a second run."""
    accepted_late = {0: 4, 1: 3}
    for planted in (False, True):
        story = Story(scripted(accepted_late))
        accept = story.model._accept

        def running_at_once(job: ModelJob, accept: Callable[[ModelJob], None] = accept) -> None:
            job.held = False
            accept(job)

        if planted:
            story.model._accept = running_at_once  # type: ignore[method-assign]
        assert story.tell() == "done"
        if planted:
            with pytest.raises(AssertionError):
                judge(story, "done")
        else:
            judge(story, "done")


class Resumed:
    """A person who resumes the run by another submission, as this client makes its N-th call."""

    def __init__(self, after: int) -> None:
        self.after, self.newest = after, True
        self.model = SlurmModel(self._draw)

    def _draw(self, kinds: Sequence[str]) -> str:
        self.after -= 1
        self.newest = self.newest and self.after > 0
        return kinds[0]


@pytest.mark.parametrize("after", [1, 2])
def test_what_another_submission_follows_is_not_released(after: int) -> None:
    resumed = Resumed(after)
    with pytest.raises(Outdated, match="job 1, which was held for it, is cancelled"):
        queued(resumed.model, lambda: resumed.newest)
    assert [job.state for job in resumed.model.jobs.values()] == [JobState.CANCELLED]
    resumed.model.finish()
    assert not resumed.model.starts


def test_of_an_array_that_a_resumed_run_has_a_part_in_nothing_is_cancelled() -> None:
    """The other runs wait for it."""
    resumed = Resumed(2)
    with pytest.raises(Outdated):
        queued(resumed.model, lambda: resumed.newest, is_shared=True)
    assert [job.state for job in resumed.model.jobs.values()] == [JobState.PENDING]
    resumed.model.finish()
    assert not resumed.model.starts


def test_what_another_submission_follows_is_not_submitted() -> None:
    """The controller did not answer at first; the run went on meanwhile."""
    model = SlurmModel(lambda kinds: "unreachable" if "accepted late" in kinds else kinds[0])
    with pytest.raises(Outdated):
        queued(model, lambda: model.now == 0)
    assert not model.jobs
    assert model.now > 0


def queued(model: SlurmModel, is_newest: Callable[[], bool] = lambda: True, **known: Any) -> str:
    wanted = Wanted(
        name="name", key=KEY, options=(), script=Path("batch.sh"), directory=Path("/"), **known
    )
    return have_queued(
        wanted,
        model,
        lambda job_id: None,
        is_newest=is_newest,
        clock=lambda: model.now,
        pause=model.pause,
    )


def test_a_job_that_was_cancelled_before_anybody_noted_it_is_submitted_again() -> None:
    """Not asked for until Slurm forgets it."""
    model = SlurmModel(lambda kinds: kinds[0])
    options = ("--hold", "--job-name=name", f"--comment=clusterseg:{KEY}")
    first = model.submit(options, Path("batch.sh"), directory=Path("/"))
    model.cancel(first, pending_only=True)
    second = queued(model, doubt=True)
    assert second != first
    assert model.now < 60
    model.finish()
    assert model.starts == [KEY]


def held(job_id: str) -> Sighting:
    return Sighting(job_id, held=True)


def known(*jobs: Sighting, **more: object) -> Known:
    return Known(**{"doubt": True, "jobs": jobs, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("what", "step"),
    [
        (Known(doubt=False), Submit()),
        (Known(doubt=True), Ask()),
        (Known(doubt=False, refused=True), Ask()),
        (known(doubt=False, refused=True), Refuse(clean=True)),
        (known(quiet=1), Ask(SETTLE)),
        (known(quiet=1, refused=True), Ask(SETTLE)),
        (known(quiet=QUIET), Submit()),
        (known(quiet=QUIET, refused=True), Refuse(clean=False)),
        (known(held("7")), Record("7")),
        (known(held("7"), recorded="6"), Record("7")),
        (known(held("7"), recorded="7"), Release("7")),
        (known(Sighting("7", live=True), recorded="7"), Done("7")),
        (known(Sighting("7", ran=True), recorded="7"), Done("7")),
        # The lowest counts, by number; the others go.
        (known(held("10"), held("9"), recorded="9"), Cancel(("10",))),
        (known(held("10"), held("9"), recorded="9", left=frozenset({"10"})), Release("9")),
        # One that runs or ran comes before a held one, whichever is recorded.
        (known(held("5"), Sighting("7", live=True), recorded="5"), Record("7")),
        (known(held("5"), Sighting("7", ran=True), recorded="7"), Cancel(("5",))),
        # Cancelled while it waited: a twin never counts, what we noted does.
        (known(Sighting("7"), quiet=0), Ask(SETTLE)),
        (known(Sighting("7"), recorded="7"), Done("7")),
        (known(Sighting("7"), held("8"), recorded="7"), Record("8")),
        # A task of an array that may have been released is not submitted again.
        (known(quiet=1, spent=True), Ask(SETTLE)),
        (known(quiet=QUIET, spent=True), Gone()),
        (known(held("7_2"), recorded="7_2", spent=True), Release("7_2")),
        (known(Sighting("7_2", held=True, with_all=True), recorded="7_2"), Release("7")),
    ],
)
def test_the_rule(what: Known, step: object) -> None:
    assert next_step(what) == step


def test_whose_jobs_are_ours() -> None:
    def job(job_id: str, **more: object) -> JobFacts:
        facts = {"id": job_id, "number": 1, "state": JobState.PENDING, "reason": "JobHeldUser"}
        return JobFacts(**{**facts, **more})  # type: ignore[arg-type]

    other = "f" * 32
    jobs = [
        job("3", key=KEY),
        job("4", key=other, name=f"name.{KEY[:12]}"),
        job("5", name=f"name.{KEY[:12]}"),  # the site has put something else into the comment
        job("6", name=f"name.{other[:12]}"),
        job("7_0", key=KEY, state=JobState.RUNNING, reason="None"),
        job("7_1", key=KEY),
        job("8", key=KEY, state=JobState.CANCELLED, reason="None"),
        job("9", key=KEY, state=JobState.CANCELLED, reason="None", node_list="n1"),
        job("11", key=KEY, state=JobState.UNKNOWN, reason="None"),
    ]
    assert sightings(jobs, KEY) == (
        Sighting("3", held=True),
        Sighting("5", held=True),
        Sighting("7", live=True, held=True),
        Sighting("8"),
        Sighting("9", ran=True),
        Sighting("11", live=True),
    )


def test_a_task_is_seen_without_the_others() -> None:
    def task(job_id: str, state: JobState = JobState.PENDING, **more: str) -> JobFacts:
        return JobFacts(
            id=job_id, number=1, state=state, key=KEY, **{"reason": "JobHeldUser"} | more
        )

    def seen(*jobs: JobFacts, array: str | None = "7", untouched: bool = True) -> object:
        return task_sightings(jobs, KEY, 1, array, untouched=untouched)

    all_held = (task("7_0"), task("7_1"))
    alone = (Sighting("7_1", held=True),)
    assert seen(*all_held) == (Sighting("7_1", held=True, with_all=True),)
    assert seen(*all_held, untouched=False) == alone
    assert seen(task("7_0", reason="Priority"), task("7_1")) == alone
    assert seen(task("7_0", JobState.FAILED), task("7_1")) == alone
    assert seen(task("7_0")) == ()
    assert seen(task("7_11")) == ()
    # A late twin of an array that was noted does not count.
    assert seen(task("9_1")) == ()
    assert seen(task("9_1"), array=None) == (Sighting("9_1", held=True, with_all=True),)
