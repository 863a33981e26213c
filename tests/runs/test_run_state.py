"""The state of a run: the table of the causes, and what may never be concluded."""

from __future__ import annotations

import itertools

import pytest

from clusterseg.runs.control import StopReason
from clusterseg.runs.records import Cause, End, State
from clusterseg.runs.state import AttemptFacts, Life, SubmissionFacts, Verdict, judge

ALIVE, DEAD, UNKNOWN = Life.ALIVE, Life.DEAD, Life.UNKNOWN
CANCEL, NOW = StopReason.CANCEL, StopReason.CANCEL_NOW


def end(cause: Cause, *, will_restart: bool = False) -> End:
    return End(t=2.0, attempt=0, cause=cause, will_restart=will_restart)


def submission(
    number: int = 0,
    *,
    started: bool = True,
    job: Life = DEAD,
    cause: Cause | None = None,
    held: bool = False,
    lost: bool = False,
    note: str | None = None,
) -> SubmissionFacts:
    return SubmissionFacts(number, started, job, cause, held, lost, note)


def attempt(
    *,
    of: int | None = 0,
    holder: Life = DEAD,
    ended: End | None = None,
    stop: str | None = None,
    note: str | None = None,
) -> AttemptFacts:
    return AttemptFacts(0, of, holder, ended, stop, note)


# The design's table: cause -> state afterwards, exit code of the run.
AFTER = {
    Cause.DONE: (State.DONE, 0),
    Cause.PREEMPTED: (State.STOPPED, 75),
    Cause.TIME_LIMIT: (State.STOPPED, 75),
    Cause.CANCELLED: (State.STOPPED, 75),
    Cause.CRASH: (State.FAILED, 1),
    Cause.HANG: (State.FAILED, 1),
    Cause.NODE_FAIL: (State.FAILED, 1),
    Cause.OUT_OF_MEMORY: (State.FAILED, 1),
    Cause.NAN: (State.FAILED, 1),
    Cause.DISK_FULL: (State.STOPPED, 75),
    Cause.UNKNOWN: (State.FAILED, 1),
}


@pytest.mark.parametrize("cause", list(Cause))
@pytest.mark.parametrize("life", list(Life))
def test_a_final_end_decides_whatever_still_lives(cause: Cause, life: Life) -> None:
    facts = attempt(holder=life, ended=end(cause))
    verdict = judge([submission(job=life)], [facts])
    assert (verdict.state, verdict.exit_code) == AFTER[cause]
    assert verdict.cause is cause


def test_cancel_now_is_cancelled_where_cancel_is_stopped() -> None:
    ended = end(Cause.CANCELLED)
    stopped = judge([submission()], [attempt(ended=ended, stop=CANCEL)])
    cancelled = judge([submission()], [attempt(ended=ended, stop=NOW)])
    assert (stopped.state, stopped.exit_code) == (State.STOPPED, 75)
    assert (cancelled.state, cancelled.exit_code) == (State.CANCELLED, 1)


def test_a_run_that_ended_otherwise_before_cancel_now_reached_it_keeps_its_end() -> None:
    for cause in (Cause.DONE, Cause.CRASH):
        verdict = judge([submission()], [attempt(ended=end(cause), stop=NOW)])
        assert verdict.state is AFTER[cause][0]


# (started, job, stop of the attempt to come) -> state, exit code, not_started
UNCLAIMED = [
    (False, DEAD, None, State.QUEUED, None, True),
    (False, DEAD, CANCEL, State.STOPPED, 75, False),
    (False, DEAD, NOW, State.CANCELLED, 1, False),
    (False, UNKNOWN, CANCEL, State.QUEUED, None, True),
    (False, UNKNOWN, NOW, State.QUEUED, None, True),
    (True, ALIVE, None, State.QUEUED, None, False),
    (True, UNKNOWN, None, State.QUEUED, None, False),
    (True, ALIVE, NOW, State.QUEUED, None, False),
    (True, DEAD, None, State.FAILED, 1, False),
    (True, DEAD, CANCEL, State.STOPPED, 75, False),
    (True, DEAD, NOW, State.CANCELLED, 1, False),
]


@pytest.mark.parametrize(("started", "job", "stop", "state", "code", "not_started"), UNCLAIMED)
@pytest.mark.parametrize(
    "before",
    [
        [],
        [attempt(ended=end(Cause.PREEMPTED))],
        [attempt(ended=end(Cause.CRASH), stop=NOW)],
        [attempt(ended=end(Cause.CRASH, will_restart=True))],
        [attempt()],
    ],
    ids=["first", "after stop", "after crash", "after half a restart", "after kill"],
)
def test_a_submission_without_an_attempt(  # noqa: PLR0917
    before: list[AttemptFacts],
    started: bool,
    job: Life,
    stop: str | None,
    state: State,
    code: int | None,
    not_started: bool,
) -> None:
    submissions = [submission(0), submission(1, started=started, job=job)]
    if not before:
        submissions = [submission(0, started=started, job=job)]
    verdict = judge(submissions, before, stop)
    assert (verdict.state, verdict.exit_code, verdict.not_started) == (state, code, not_started)


def test_a_job_that_died_in_its_setup_says_so() -> None:
    verdict = judge([submission(job=DEAD)], [])
    assert verdict.note == "the batch script ended before it started an attempt"


# (holder, job, stop) -> state, exit code
UNENDED = [
    (ALIVE, ALIVE, None, State.RUNNING, None),
    (UNKNOWN, UNKNOWN, None, State.RUNNING, None),
    (UNKNOWN, DEAD, None, State.RUNNING, None),
    (ALIVE, ALIVE, NOW, State.RUNNING, None),
    (DEAD, ALIVE, None, State.QUEUED, None),
    (DEAD, UNKNOWN, None, State.QUEUED, None),
    (DEAD, DEAD, None, State.FAILED, 1),
    (DEAD, DEAD, CANCEL, State.FAILED, 1),
    (DEAD, DEAD, NOW, State.CANCELLED, 1),
]


@pytest.mark.parametrize(("holder", "job", "stop", "state", "code"), UNENDED)
def test_an_attempt_without_an_end(
    holder: Life, job: Life, stop: str | None, state: State, code: int | None
) -> None:
    verdict = judge([submission(job=job)], [attempt(holder=holder, stop=stop)])
    assert (verdict.state, verdict.exit_code) == (state, code)


def test_a_killed_supervisor_has_the_cause_unknown() -> None:
    verdict = judge([submission()], [attempt()])
    assert verdict == Verdict(
        State.FAILED, exit_code=1, cause=Cause.UNKNOWN, note="its supervisor was killed"
    )


# (holder, job, cause) -> state: between an attempt and the one that follows it
RESTARTING = [
    (ALIVE, ALIVE, Cause.CRASH, State.RUNNING, None),
    (DEAD, ALIVE, Cause.PREEMPTED, State.QUEUED, None),
    (DEAD, UNKNOWN, Cause.PREEMPTED, State.QUEUED, None),
    (UNKNOWN, DEAD, Cause.CRASH, State.QUEUED, None),
    (DEAD, DEAD, Cause.CRASH, State.FAILED, 1),
    (DEAD, DEAD, Cause.PREEMPTED, State.STOPPED, 75),
]


@pytest.mark.parametrize(("holder", "job", "cause", "state", "code"), RESTARTING)
def test_between_two_attempts(
    holder: Life, job: Life, cause: Cause, state: State, code: int | None
) -> None:
    ended = end(cause, will_restart=True)
    verdict = judge([submission(job=job)], [attempt(holder=holder, ended=ended)])
    assert (verdict.state, verdict.exit_code) == (state, code)


def test_cancel_now_between_two_attempts_whose_supervisor_died() -> None:
    ended = end(Cause.CRASH, will_restart=True)
    verdict = judge([submission()], [attempt(ended=ended, stop=NOW)])
    assert verdict.state is State.CANCELLED


def test_an_older_attempt_that_still_runs_is_not_hidden_by_a_new_submission() -> None:
    verdict = judge([submission(0), submission(1, job=ALIVE)], [attempt(holder=ALIVE)])
    assert verdict.state is State.RUNNING


# What a scheduler says of a job -> state, exit code, cause: before any attempt, and after one that
# has no end record and nobody who could still write one.
ENDED_BY_SCHEDULER = [
    (Cause.PREEMPTED, State.STOPPED, 75, Cause.PREEMPTED),
    (Cause.TIME_LIMIT, State.STOPPED, 75, Cause.TIME_LIMIT),
    (Cause.NODE_FAIL, State.FAILED, 1, Cause.NODE_FAIL),
    (Cause.OUT_OF_MEMORY, State.FAILED, 1, Cause.OUT_OF_MEMORY),
    (Cause.CANCELLED, State.CANCELLED, 1, Cause.CANCELLED),
    (Cause.DONE, State.FAILED, 1, Cause.UNKNOWN),  # it says nothing of the run's own end
    (None, State.FAILED, 1, Cause.UNKNOWN),
]


@pytest.mark.parametrize(("said", "state", "code", "cause"), ENDED_BY_SCHEDULER)
@pytest.mark.parametrize("attempts", [[], [attempt()]], ids=["unclaimed", "claimed"])
def test_the_scheduler_says_why_a_job_ended_without_a_record(
    attempts: list[AttemptFacts], said: Cause | None, state: State, code: int, cause: Cause
) -> None:
    verdict = judge([submission(cause=said, note="Slurm says X")], attempts)
    assert (verdict.state, verdict.exit_code, verdict.cause) == (state, code, cause)
    assert verdict.note is not None
    assert verdict.note.endswith("; Slurm says X")


def test_a_job_cancelled_after_a_request_to_stop_is_stopped() -> None:
    facts = submission(cause=Cause.CANCELLED)
    assert judge([facts], [attempt(stop=CANCEL)]).state is State.STOPPED
    assert judge([facts], [attempt(stop=NOW)]).state is State.CANCELLED


def test_a_job_cancelled_while_it_waits_to_go_on_keeps_what_its_attempt_said() -> None:
    ended = end(Cause.PREEMPTED, will_restart=True)
    verdict = judge([submission(cause=Cause.CANCELLED, note="scancel")], [attempt(ended=ended)])
    assert (verdict.state, verdict.exit_code, verdict.cause) == (
        State.STOPPED,
        75,
        Cause.PREEMPTED,
    )


@pytest.mark.parametrize("ended", [None, end(Cause.PREEMPTED, will_restart=True)])
def test_a_request_to_stop_while_it_waits_to_go_on_is_what_ended_it(ended: End | None) -> None:
    gone = submission(cause=Cause.CANCELLED, note="scancel")
    for before in (None, "preempted"):
        last = [attempt(ended=ended, stop=before)]
        assert judge([gone], last, CANCEL) == Verdict(State.STOPPED, 75, Cause.CANCELLED)
        assert judge([gone], last, NOW) == Verdict(State.CANCELLED, 1, Cause.CANCELLED)
    # Somebody else cancelled it.
    assert judge([gone], [attempt(ended=ended)]).note is not None


def test_a_held_job_is_queued_and_finished_by_resume() -> None:
    verdict = judge([submission(job=ALIVE, held=True, note="job 12 is held")], [])
    assert verdict == Verdict(State.QUEUED, note="job 12 is held", not_started=True)
    unrecorded = submission(started=False, job=ALIVE, held=True, note="job 12 waits for it")
    assert judge([unrecorded], []).note == "job 12 waits for it"
    assert judge([unrecorded], []).not_started


@pytest.mark.parametrize("ended", [None, end(Cause.PREEMPTED, will_restart=True)])
def test_a_job_that_was_queued_again_and_is_held_needs_resume(ended: End | None) -> None:
    held = submission(job=ALIVE, held=True, note="and holds it")
    verdict = judge([held], [attempt(ended=ended)])
    assert (verdict.state, verdict.over, verdict.note) == (State.QUEUED, False, "and holds it")
    assert verdict.not_started
    # It may still write: whose job is released then?
    for holder in (ALIVE, UNKNOWN):
        assert not judge([held], [attempt(ended=ended, holder=holder)]).not_started
    assert not judge([submission(job=ALIVE)], [attempt(ended=ended)]).not_started


def test_a_lost_job_is_never_over_by_itself() -> None:
    verdict = judge([submission(lost=True, note="Slurm does not know job 12")], [])
    assert verdict == Verdict(State.QUEUED, note="Slurm does not know job 12", not_started=True)
    again = [submission(0), submission(1, lost=True)]
    assert judge(again, [attempt(ended=end(Cause.PREEMPTED))]).not_started
    assert judge([submission(lost=True)], [], NOW).state is State.CANCELLED
    # Claimed: who holds it decides.
    assert judge([submission(lost=True)], [attempt(holder=UNKNOWN, note="?")]).note == "?"
    assert judge([submission(lost=True)], [attempt(holder=DEAD)]).state is State.FAILED


def test_an_outage_is_noted_and_changes_nothing() -> None:
    for started in (True, False):
        facts = submission(started=started, job=UNKNOWN, note="Slurm does not answer")
        verdict = judge([facts], [])
        assert verdict.state is State.QUEUED
        assert verdict.note == "Slurm does not answer"
        assert verdict.not_started is not started
    verdict = judge([submission(job=UNKNOWN)], [attempt(holder=UNKNOWN, note="no answer")])
    assert verdict == Verdict(State.RUNNING, note="no answer")


def everything() -> list[tuple[list[SubmissionFacts], list[AttemptFacts], str | None]]:
    """Every combination of facts."""
    submissions: list[list[SubmissionFacts]] = [[]]
    for number, started, job in itertools.product((0, 1), (True, False), Life):
        submissions.append([submission(number, started=started, job=job)])
        submissions.append([submission(number, started=started, job=job, lost=True)])
        submissions.append([submission(number, started=started, job=job, held=True)])
        for cause in (Cause.DONE, Cause.CANCELLED, Cause.NODE_FAIL):
            submissions.append([submission(number, started=started, job=job, cause=cause)])
    ends = [None, *(end(c, will_restart=again) for c in Cause for again in (True, False))]
    attempts: list[list[AttemptFacts]] = [[]]
    for of, holder, ended, stop in itertools.product((None, 0), Life, ends, (None, CANCEL, NOW)):
        attempts.append([attempt(of=of, holder=holder, ended=ended, stop=stop)])
    return list(itertools.product(submissions, attempts, (None, CANCEL, NOW)))


def test_what_holds_for_all_facts() -> None:
    exit_codes = {
        State.DONE: 0,
        State.STOPPED: 75,
        State.FAILED: 1,
        State.CANCELLED: 1,
        State.QUEUED: None,
        State.RUNNING: None,
    }
    for submissions, attempts, stop in everything():
        verdict = judge(submissions, attempts, stop)
        assert verdict.exit_code == exit_codes[verdict.state]
        assert verdict.over == (verdict.exit_code is not None)
        last = attempts[-1] if attempts else None
        final = last is not None and last.end is not None and not last.end.will_restart
        if verdict.state is State.DONE:
            assert last is not None
            assert last.end is not None
            assert last.end.cause is Cause.DONE
        if last is not None and not final and last.holder is not DEAD:
            # What may live is never declared over, unless a later submission took its place.
            newer = submissions and last.submission is not None
            assert not verdict.over or (newer and submissions[-1].number > last.submission)
        if verdict.not_started:
            one = submissions[-1] if submissions else None
            assert one is None or not one.started or one.held or one.lost
        if submissions and submissions[-1].job is not DEAD and not final:
            # What the scheduler has, or may have, is never over.
            assert not verdict.over
