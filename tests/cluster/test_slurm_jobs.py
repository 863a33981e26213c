"""Job states as a partial order: no answer of Slurm moves a job back, but for a requeue."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterseg.cluster.slurm.jobs import (
    OVER,
    WAITING,
    JobFacts,
    JobState,
    Progress,
    carries,
    is_over,
    job_comment,
    job_name,
    job_state,
    key_of,
    later,
)

KEY = "0123456789abcdef" * 2
times = st.one_of(st.none(), st.sampled_from([100.0, 200.0, 300.0]))
progresses = st.builds(Progress, st.sampled_from(JobState), times, times)


@given(progresses, progresses)
def test_what_is_believed_is_one_of_the_two(known: Progress, said: Progress) -> None:
    assert later(known, said) in (known, said)


@given(progresses)
def test_silence_and_what_is_not_understood_change_nothing(known: Progress) -> None:
    assert later(known, None) == known
    assert later(known, Progress(JobState.UNKNOWN)) == known
    assert later(known, known) == known


@given(progresses, progresses)
def test_an_answer_of_an_earlier_life_is_never_believed(known: Progress, said: Progress) -> None:
    if known.state is JobState.UNKNOWN or known.submitted is None or said.submitted is None:
        return
    if said.submitted < known.submitted:
        assert later(known, said) == known
    if said.submitted > known.submitted and said.state is not JobState.UNKNOWN:
        assert later(known, said) == said  # a requeue


@given(st.sampled_from(sorted(OVER)), st.sampled_from(JobState), times)
def test_within_a_life_an_end_is_final(end: JobState, said: JobState, start: float | None) -> None:
    known = Progress(end, 100.0, start)
    if said not in WAITING - {JobState.PENDING}:
        assert later(known, Progress(said, 100.0, start)) == known


@pytest.mark.parametrize(
    "way",
    [
        ["PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "COMPLETED"],
        ["PENDING", "RUNNING", "SUSPENDED", "RUNNING", "COMPLETING", "TIMEOUT"],
        ["PENDING", "RUNNING", "STAGE_OUT", "NODE_FAIL"],
        ["PENDING", "RUNNING", "COMPLETING", "REQUEUE_HOLD", "RUNNING", "FAILED"],
        ["RUNNING", "REQUEUED", "PENDING", "RUNNING", "CANCELLED"],
    ],
)
def test_the_way_of_a_job_is_followed(way: list[str]) -> None:
    known = Progress(JobState.UNKNOWN)
    for state in way:
        said = Progress(JobState(state), 100.0)
        known = later(known, said)
        assert known == said


def test_a_late_answer_does_not_move_a_job_back_to_pending() -> None:
    running = Progress(JobState.RUNNING, 100.0, 110.0)
    assert later(running, Progress(JobState.PENDING, 100.0)) == running
    assert later(running, Progress(JobState.PENDING, 120.0)).state is JobState.PENDING


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("CANCELLED by 1000", JobState.CANCELLED),
        ("CANCELLED+", JobState.CANCELLED),
        (" RUNNING ", JobState.RUNNING),
        ("OUT_OF_ME+", JobState.UNKNOWN),
        ("", JobState.UNKNOWN),
        ("running", JobState.UNKNOWN),
    ],
)
def test_words_for_states(text: str, state: JobState) -> None:
    assert job_state(text) is state


@given(st.text(max_size=30))
def test_any_word_is_a_state(text: str) -> None:
    assert isinstance(job_state(text), JobState)


def test_only_real_ends_are_over() -> None:
    assert is_over(JobState.NODE_FAIL)
    for state in ("COMPLETING", "REQUEUED", "SUSPENDED", "RESIZING", "UNKNOWN"):
        assert not is_over(JobState(state))


@pytest.mark.parametrize(
    ("state", "reason", "held"),
    [
        ("PENDING", "JobHeldUser", True),
        ("PENDING", "JobHeldAdmin", True),
        ("PENDING", "launch failed requeued held", True),
        ("REQUEUE_HOLD", "", True),
        ("SPECIAL_EXIT", "", True),
        ("PENDING", "Resources", False),
        ("RUNNING", "JobHeldUser", False),
    ],
)
def test_held(state: str, reason: str, held: bool) -> None:
    assert JobFacts(id="1", number=1, state=JobState(state), reason=reason).is_held is held


def test_the_key_is_found_in_the_comment_or_else_in_the_name() -> None:
    assert key_of(job_comment(KEY)) == KEY
    for text in ("clusterseg:", f"clusterseg:{KEY}0", f"x clusterseg:{KEY}", KEY, "(null)"):
        assert key_of(text) is None
    named = JobFacts(id="1", number=1, state=JobState.RUNNING, name=job_name("demo", KEY))
    assert carries(named, KEY)
    assert not carries(named, "f" * 32)
    assert not carries(named, "")
    other = JobFacts(
        id="1", number=1, state=JobState.RUNNING, name=job_name("demo", KEY), key="f" * 32
    )
    assert not carries(other, KEY)
