"""A run directory and the lives behind it, read in the order that makes "dead" mean dead."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from clusterseg.runs.attempts import Attempt, attempt_numbers, last_attempt
from clusterseg.runs.control import read_stop
from clusterseg.runs.paths import RunPaths, SubmissionPaths
from clusterseg.runs.records import Cause, Claim
from clusterseg.runs.state import AttemptFacts, Life, SubmissionFacts, Verdict, judge
from clusterseg.runs.store import iter_submissions, read_job_id


class Lives(Protocol):
    """Who can say whether jobs and processes live (`clusterseg.cluster.local.LocalLives`)."""

    def job(self, job_id: str) -> Life:
        """The life of a scheduler's job."""

    def holder(self, claim: Claim) -> Life:
        """The life of the supervisor that holds a claim."""


class NobodyKnows:
    """Where only the directory can be looked at: what has no end record may still run."""

    def job(self, job_id: str) -> Life:
        return Life.UNKNOWN

    def holder(self, claim: Claim) -> Life:
        return Life.UNKNOWN


class Snapshot(Struct, frozen=True):
    """A run at one moment: its verdict and the records that decided it."""

    run: RunPaths
    verdict: Verdict
    submission: SubmissionPaths | None
    job_id: str | None
    attempt: Attempt | None


def take(run: RunPaths, lives: Lives) -> Snapshot:
    """The state of a run, whatever else writes to it meanwhile. Raises OSError."""
    while True:
        reading = _read(run)
        if reading.settled:  # no life needs to be asked for
            return _judged(run, reading, Life.DEAD, Life.DEAD)
        job = lives.job(reading.job_id) if reading.job_id else Life.DEAD
        holder = _holder(reading.attempt, job, lives)
        # Who is dead by now may have written an end or another claim since the reading.
        if Life.DEAD not in (job, holder) or _read(run) == reading:
            return _judged(run, reading, job, holder)


class _Reading(Struct, frozen=True):
    """What the directory says: its last submission and its last attempt."""

    submission: SubmissionPaths | None
    job_id: str | None
    attempt: Attempt | None

    @property
    def settled(self) -> bool:
        """The last attempt ended for good, and nothing was submitted since."""
        attempt = self.attempt
        if attempt is None or attempt.end is None or attempt.end.will_restart:
            return False
        if self.submission is None:
            return True
        return attempt.claim is not None and self.submission.number <= attempt.claim.submission


def _read(run: RunPaths) -> _Reading:
    submissions = iter_submissions(run)
    submission = submissions[-1] if submissions else None
    job_id = read_job_id(submission) if submission else None
    return _Reading(submission, job_id, last_attempt(run))


def _holder(attempt: Attempt | None, job: Life, lives: Lives) -> Life:
    if attempt is None:
        return Life.DEAD
    if attempt.claim is None:  # who holds it can't be read: its job is the best witness
        return job
    return lives.holder(attempt.claim)


def _judged(run: RunPaths, reading: _Reading, job: Life, holder: Life) -> Snapshot:
    submissions, attempts = [], []
    if reading.submission:
        started = reading.job_id is not None
        submissions.append(SubmissionFacts(reading.submission.number, started, job))
    if attempt := reading.attempt:
        number = attempt.claim.submission if attempt.claim else None
        asked = not reading.settled or (attempt.end and attempt.end.cause is Cause.CANCELLED)
        stop = stop_reason(run, attempt.number) if asked else None  # of thousands, few were asked
        attempts.append(AttemptFacts(attempt.number, number, holder, attempt.end, stop))
    next_stop = None if reading.settled else stop_reason(run, next_attempt_number(run))
    verdict = judge(submissions, attempts, next_stop)
    return Snapshot(run, verdict, reading.submission, reading.job_id, reading.attempt)


def next_attempt_number(run: RunPaths) -> int:
    """The number that the next claim will have."""
    numbers = attempt_numbers(run)
    return numbers[-1] + 1 if numbers else 0


def stop_reason(run: RunPaths, attempt: int) -> str | None:
    """Why an attempt was asked to stop; None if it was not."""
    try:
        request = read_stop(run.stop_file(attempt))
    except OSError:
        return None
    return request.reason if request else None
