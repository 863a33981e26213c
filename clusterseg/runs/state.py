"""What a run is doing: a pure function of what its directory says and of who still lives.

The table is that of the causes in docs/run-directory.md. "Unknown" is never taken for "dead":
a scheduler that does not answer, or a process on another host, leaves a run as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from msgspec import Struct

from clusterseg.errors import ExitCode
from clusterseg.runs.control import StopReason
from clusterseg.runs.records import Cause, End, State


class Life(StrEnum):
    """Whether a process or a job still exists. UNKNOWN: it can't be told from here."""

    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"


class SubmissionFacts(Struct, frozen=True):
    """One submission. `started`: it has a job id. `job`: the life of that job.

    The rest is what a scheduler says. `cause`: why the job is over. `held`: the job waits until
    `resume` releases it. `lost`: the scheduler answers, and does not know the job. `note`
    explains it to a person.
    """

    number: int
    started: bool
    job: Life = Life.DEAD
    cause: Cause | None = None
    held: bool = False
    lost: bool = False
    note: str | None = None


class AttemptFacts(Struct, frozen=True):
    """One claimed attempt. `holder`: the life of the supervisor that claimed it.

    `submission` is that of the claim, None if the claim can't be read. `stop` is the reason in
    its stop file, None if nobody asked it to stop. `note` explains why `holder` is believed.
    """

    number: int
    submission: int | None
    holder: Life = Life.DEAD
    end: End | None = None
    stop: str | None = None
    note: str | None = None


class Verdict(Struct, frozen=True):
    """The state of a run. `exit_code` is None while it goes on; `note` explains, if need be.

    `cause` is that of the last attempt's end (UNKNOWN if it was killed), None if there is none
    or it still runs. `not_started`: nothing will happen until `resume` starts the submission, or
    releases its job.
    """

    state: State
    exit_code: int | None = None
    cause: Cause | None = None
    note: str | None = None
    not_started: bool = False

    @property
    def over(self) -> bool:
        """Nothing more will happen by itself."""
        return self.exit_code is not None


EXIT_CODES = {
    State.DONE: ExitCode.OK,
    State.STOPPED: ExitCode.STOPPED,
    State.FAILED: ExitCode.FAILED,
    State.CANCELLED: ExitCode.FAILED,
}

# The state after an attempt that will not be followed by another one.
_AFTER = {
    Cause.DONE: State.DONE,
    Cause.PREEMPTED: State.STOPPED,
    Cause.TIME_LIMIT: State.STOPPED,
    Cause.CANCELLED: State.STOPPED,
    Cause.DISK_FULL: State.STOPPED,
    Cause.CRASH: State.FAILED,
    Cause.HANG: State.FAILED,
    Cause.NODE_FAIL: State.FAILED,
    Cause.OUT_OF_MEMORY: State.FAILED,
    Cause.NAN: State.FAILED,
    Cause.UNKNOWN: State.FAILED,
}


def judge(
    submissions: Sequence[SubmissionFacts],
    attempts: Sequence[AttemptFacts],
    next_stop: str | None = None,
) -> Verdict:
    """The state of a run; only the last submission and the last attempt decide.

    The lives must have been looked up before the records were read, so that "dead" and "no
    record" together mean that there will be none. `next_stop` is the reason in the stop file
    of the attempt that nobody has claimed yet.
    """
    submission = submissions[-1] if submissions else None
    attempt = attempts[-1] if attempts else None
    if attempt is None:
        return _unclaimed(submission, next_stop)
    if submission is not None and _is_newer(submission, attempt):
        if attempt.end is None and attempt.holder is Life.ALIVE:
            return Verdict(State.RUNNING)
        return _unclaimed(submission, next_stop)
    if submission is None:
        submission = SubmissionFacts(0, started=True, job=attempt.holder)
    if attempt.end is None:
        return _unended(attempt, submission, next_stop)
    return _ended(attempt, attempt.end, submission, next_stop)


def _is_newer(submission: SubmissionFacts, attempt: AttemptFacts) -> bool:
    return attempt.submission is not None and submission.number > attempt.submission


def _unclaimed(submission: SubmissionFacts | None, stop: str | None) -> Verdict:
    """A submission that no attempt belongs to yet."""
    submission = submission or SubmissionFacts(0, started=False)
    if submission.job is not Life.DEAD:  # no request to stop makes an end of silence
        is_doubtful = submission.job is Life.UNKNOWN and not submission.started
        not_started = submission.held or is_doubtful
        return Verdict(State.QUEUED, note=submission.note, not_started=not_started)
    if stop == StopReason.CANCEL_NOW:
        return _final(State.CANCELLED, Cause.CANCELLED)
    if stop is not None:
        return _final(State.STOPPED, Cause.CANCELLED)
    if not submission.started or submission.lost:
        note = submission.note or "it was never started"
        return Verdict(State.QUEUED, note=note, not_started=True)
    cancelled = submission.cause is Cause.CANCELLED
    how = "it was cancelled" if cancelled else "the batch script ended"
    note = _joined(f"{how} before it started an attempt", submission.note)
    if submission.cause in (None, Cause.DONE):
        return _final(State.FAILED, Cause.UNKNOWN, note=note)
    return _killed(submission.cause, stop, note)


def _unended(attempt: AttemptFacts, submission: SubmissionFacts, next_stop: str | None) -> Verdict:
    """The last attempt has no end record: it runs, or was killed."""
    if attempt.holder is not Life.DEAD:
        return Verdict(State.RUNNING, note=attempt.note)
    if submission.job is not Life.DEAD:  # requeued by the scheduler: it will claim again
        note = attempt.note or submission.note
        held = submission.held
        return Verdict(State.QUEUED, cause=Cause.UNKNOWN, note=note, not_started=held)
    if StopReason.CANCEL_NOW in (attempt.stop, next_stop):
        return _final(State.CANCELLED, Cause.CANCELLED)
    if next_stop == StopReason.CANCEL:  # while it waited to start again
        return _final(State.STOPPED, Cause.CANCELLED)
    note = _joined("its supervisor was killed", attempt.note or submission.note)
    if submission.cause in (None, Cause.DONE):
        return _final(State.FAILED, Cause.UNKNOWN, note=note)
    return _killed(submission.cause, attempt.stop, note)


def _ended(
    attempt: AttemptFacts, end: End, submission: SubmissionFacts, next_stop: str | None
) -> Verdict:
    if not end.will_restart:
        cancelled_now = end.cause is Cause.CANCELLED and attempt.stop == StopReason.CANCEL_NOW
        return _final(State.CANCELLED if cancelled_now else _AFTER[end.cause], end.cause)
    if attempt.holder is Life.ALIVE:  # the supervisor is about to claim the next attempt
        return Verdict(State.RUNNING, cause=end.cause)
    if submission.job is not Life.DEAD or attempt.holder is Life.UNKNOWN:
        held = submission.held and attempt.holder is Life.DEAD
        note = attempt.note or submission.note
        return Verdict(State.QUEUED, cause=end.cause, note=note, not_started=held)
    asked = (attempt.stop, next_stop)
    if StopReason.CANCEL_NOW in asked:
        return _final(State.CANCELLED, Cause.CANCELLED)
    if StopReason.CANCEL in asked:
        return _final(State.STOPPED, Cause.CANCELLED)
    # Its supervisor was killed, or Slurm refused to queue its job again.
    note = _joined("its job ended before the restart", submission.note)
    return _final(_AFTER[end.cause], end.cause, note=note)


def _killed(cause: Cause, stop: str | None, note: str) -> Verdict:
    """After a job that its scheduler ended, without a word from the supervisor."""
    if cause is Cause.CANCELLED and stop is None:  # nobody asked for a stop: nothing was saved
        return _final(State.CANCELLED, cause, note=note)
    return _final(_AFTER[cause], cause, note=note)


def _joined(note: str, why: str | None) -> str:
    return f"{note}; {why}" if why else note


def _final(state: State, cause: Cause, note: str | None = None) -> Verdict:
    return Verdict(state, exit_code=int(EXIT_CODES[state]), cause=cause, note=note)
