"""What Slurm's word on our job means: the pure rules, with what Slurm 22.05 was seen to print."""

from __future__ import annotations

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterseg.cluster.slurm.allocation import Life
from clusterseg.cluster.slurm.jobs import JobDetail, JobState
from clusterseg.runs.records import Cause
from clusterseg.supervise.slurm_job import (
    NO_WORD,
    Fate,
    Word,
    cause_of_fate,
    cause_of_life,
    cause_of_notice,
    notice_lead,
    read_word,
    true_cause,
)

NOW = 1_000_000.0


def job(state: JobState = JobState.RUNNING, **fields: object) -> JobDetail:
    known = {"id": "12", "number": 12, "start": NOW - 100, "end": NOW + 500}
    return JobDetail(state=state, **{**known, **fields})  # type: ignore[arg-type]


COMPLETING = JobState.COMPLETING
FATES = [
    ("it runs", job(), 0, Fate.RUNNING),
    ("its second life runs", job(restarts=1), 1, Fate.RUNNING),
    ("in its grace time", job(preempt=NOW), 0, Fate.PREEMPTED),
    ("at the time limit", job(COMPLETING, reason="TimeLimit", end=NOW), 0, Fate.TIME_LIMIT),
    ("after the time limit", job(JobState.TIMEOUT), 0, Fate.TIME_LIMIT),
    ("scancel", job(COMPLETING, reason="None", end=NOW), 0, Fate.CANCELLED),
    ("after scancel", job(JobState.CANCELLED), 0, Fate.CANCELLED),
    ("requeued", job(COMPLETING, restarts=1), 0, Fate.REQUEUED),
    (
        "requeued and waiting",
        job(JobState.PENDING, restarts=1, reason="BeginTime"),
        0,
        Fate.REQUEUED,
    ),
    ("requeued and running elsewhere: we are a zombie", job(restarts=1), 0, Fate.REQUEUED),
    ("requeued at its grace time's end", job(COMPLETING, restarts=3), 2, Fate.REQUEUED),
    ("a node fails", job(COMPLETING, reason="NodeDown"), 0, Fate.NODE_FAIL),
    ("out of memory", job(JobState.OUT_OF_MEMORY), 0, Fate.OUT_OF_MEMORY),
    ("suspended", job(JobState.SUSPENDED), 0, Fate.RUNNING),
    ("a word of tomorrow", job(JobState.UNKNOWN), 0, Fate.UNKNOWN),
    ("no answer", None, 0, Fate.UNKNOWN),
]


@pytest.mark.parametrize(
    ("detail", "restarts", "fate"), [case[1:] for case in FATES], ids=[case[0] for case in FATES]
)
def test_fates(detail: JobDetail | None, restarts: int, fate: Fate) -> None:
    assert read_word(detail, restarts).fate is fate


def test_the_end_counts_only_while_the_job_goes_on() -> None:
    assert read_word(job(), 0).ends == NOW + 500
    assert read_word(job(preempt=NOW, end=NOW + 10), 0).ends == NOW + 10
    # After a requeue this is the end of the next life.
    assert read_word(job(COMPLETING, restarts=1), 0).ends is None


USR1, TERM, INT = signal.SIGUSR1, signal.SIGTERM, signal.SIGINT
RUNNING = Word(Fate.RUNNING)


@pytest.mark.parametrize(
    ("number", "word", "left", "cause"),
    [
        (USR1, Word(Fate.PREEMPTED), 10.0, Cause.PREEMPTED),  # the grace time is the end
        (USR1, RUNNING, 60.0, Cause.TIME_LIMIT),
        (USR1, RUNNING, 3600.0, Cause.PREEMPTED),  # scancel --signal=USR1 --batch
        (USR1, NO_WORD, 60.0, Cause.TIME_LIMIT),
        (USR1, NO_WORD, None, Cause.PREEMPTED),
        (TERM, Word(Fate.CANCELLED), 3600.0, Cause.CANCELLED),
        (TERM, Word(Fate.TIME_LIMIT), -6.0, Cause.TIME_LIMIT),
        (TERM, Word(Fate.REQUEUED), 3600.0, Cause.PREEMPTED),
        (TERM, RUNNING, 3600.0, Cause.PREEMPTED),
        (TERM, NO_WORD, None, Cause.PREEMPTED),
        (INT, RUNNING, 3600.0, Cause.CANCELLED),
    ],
)
def test_what_a_signal_means(number: int, word: Word, left: float | None, cause: Cause) -> None:
    assert cause_of_notice(number, word, left) is cause


def test_a_site_may_be_warned_long_before_the_end() -> None:
    lead = notice_lead(("--nodes=2", "--signal=B:USR1@600"))
    assert cause_of_notice(USR1, RUNNING, 640.0, lead) is Cause.TIME_LIMIT
    assert notice_lead(("--nodes=2",)) == notice_lead(("--signal=B:USR1@30",))


@pytest.mark.parametrize(
    ("shown", "word", "lost", "cause"),
    [
        # mpirun's daemons are ended when the grace time starts: it looks like a crash.
        (Cause.CRASH, Word(Fate.PREEMPTED), (), Cause.PREEMPTED),
        (Cause.NODE_FAIL, Word(Fate.PREEMPTED), (), Cause.PREEMPTED),
        (Cause.CRASH, Word(Fate.REQUEUED), (), Cause.PREEMPTED),
        (Cause.CRASH, Word(Fate.TIME_LIMIT), (), Cause.TIME_LIMIT),
        (Cause.CRASH, Word(Fate.CANCELLED), (), Cause.CANCELLED),
        (Cause.CRASH, Word(Fate.OUT_OF_MEMORY), (), Cause.OUT_OF_MEMORY),
        (Cause.CRASH, RUNNING, (), Cause.CRASH),
        (Cause.CRASH, NO_WORD, (), Cause.CRASH),
        (Cause.CRASH, RUNNING, ("n2",), Cause.NODE_FAIL),
        (Cause.HANG, RUNNING, ("n2",), Cause.NODE_FAIL),
        (Cause.CRASH, Word(Fate.REQUEUED), ("n2",), Cause.NODE_FAIL),
        (Cause.PREEMPTED, Word(Fate.REQUEUED), ("n2",), Cause.NODE_FAIL),
        # A rank that got TERM at the time limit stopped in order, nobody knew why.
        (Cause.PREEMPTED, Word(Fate.TIME_LIMIT), (), Cause.TIME_LIMIT),
        (Cause.PREEMPTED, Word(Fate.CANCELLED), (), Cause.CANCELLED),
        (Cause.PREEMPTED, RUNNING, (), Cause.PREEMPTED),
        (Cause.TIME_LIMIT, Word(Fate.PREEMPTED), (), Cause.TIME_LIMIT),
        (Cause.TIME_LIMIT, Word(Fate.CANCELLED), (), Cause.CANCELLED),
        (Cause.DONE, Word(Fate.PREEMPTED), (), Cause.DONE),
        (Cause.NAN, Word(Fate.PREEMPTED), (), Cause.NAN),
        (Cause.OUT_OF_MEMORY, Word(Fate.REQUEUED), (), Cause.OUT_OF_MEMORY),
    ],
)
def test_true_causes(shown: Cause, word: Word, lost: tuple[str, ...], cause: Cause) -> None:
    assert true_cause(shown, word, lost) is cause


def test_what_slurm_printed_counts_if_it_does_not_answer() -> None:
    assert true_cause(Cause.CRASH, NO_WORD, (), Cause.PREEMPTED) is Cause.PREEMPTED
    assert true_cause(Cause.CRASH, RUNNING, (), Cause.PREEMPTED) is Cause.CRASH


def test_a_program_that_stops_unasked_has_crashed() -> None:
    """One that always exits 75 would be queued again for ever."""
    assert true_cause(Cause.PREEMPTED, RUNNING, (), unasked=True) is Cause.CRASH
    for fate in (Fate.PREEMPTED, Fate.REQUEUED, Fate.UNKNOWN):
        assert true_cause(Cause.PREEMPTED, Word(fate), (), unasked=True) is Cause.PREEMPTED


words = st.builds(Word, st.sampled_from(Fate))


@given(st.sampled_from(Cause), words, st.sampled_from([(), ("n2",)]))
def test_a_cancelled_job_is_never_taken_for_one_to_go_on(
    shown: Cause, word: Word, lost: tuple[str, ...]
) -> None:
    cause = true_cause(shown, word, lost)
    if word.fate is Fate.CANCELLED and shown not in (Cause.DONE, Cause.NAN):
        assert cause is Cause.CANCELLED
    if cause is Cause.DONE:
        assert shown is Cause.DONE


def test_what_a_look_by_the_way_tells() -> None:
    assert cause_of_fate(RUNNING) is None
    assert cause_of_fate(NO_WORD) is None
    assert cause_of_fate(Word(Fate.PREEMPTED)) is Cause.PREEMPTED
    assert cause_of_fate(Word(Fate.REQUEUED)) is Cause.PREEMPTED


@pytest.mark.parametrize(
    ("state", "cause"),
    [
        (JobState.PREEMPTED, Cause.PREEMPTED),
        (JobState.REQUEUED, Cause.PREEMPTED),
        (JobState.TIMEOUT, Cause.TIME_LIMIT),
        (JobState.NODE_FAIL, Cause.NODE_FAIL),
        (JobState.FAILED, Cause.UNKNOWN),
    ],
)
def test_what_the_accounting_says_of_a_life(state: JobState, cause: Cause) -> None:
    assert cause_of_life(Life(state, "2026-11-21T03:00:00")) is cause
    assert cause_of_life(None) is Cause.UNKNOWN
