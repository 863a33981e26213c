"""A run directory and the lives behind it, read in the order that makes "dead" mean dead."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Protocol

from msgspec import Struct

from clusterseg.runs.attempts import Attempt, attempt_numbers, last_attempt
from clusterseg.runs.control import read_stop
from clusterseg.runs.files import read_capped
from clusterseg.runs.paths import RunPaths, SubmissionPaths
from clusterseg.runs.records import Cause, Claim
from clusterseg.runs.state import AttemptFacts, Life, SubmissionFacts, Verdict, judge
from clusterseg.runs.store import iter_submissions, read_intent, read_job_id

_LONGEST_ID = 1024  # bytes
_LOCAL = "local-"  # what the ids of jobs without a scheduler begin with


class JobKey(Struct, frozen=True):
    """A job for good: a scheduler's id alone may be another's.

    `id` is None for a submission whose id nobody recorded; `key` is that of the submission, None
    if it can't be read. `since`: unix seconds; an older answer of the scheduler says nothing.
    `task`: its number in a job array whose tasks share the key. `uid` and `cluster` say whose
    scheduler knows it, None if any may.
    """

    id: str | None
    key: str | None
    is_local: bool
    since: float = 0.0
    task: int | None = None
    uid: int | None = None
    cluster: str | None = None


class Sight(Struct, frozen=True):
    """What is seen of a job or of a supervisor; the fields are those of `SubmissionFacts`."""

    life: Life
    cause: Cause | None = None
    held: bool = False
    lost: bool = False
    note: str | None = None


class Lives(Protocol):
    """Who can say whether jobs and processes live (`clusterseg.cluster.look`)."""

    def expect(self, jobs: Iterable[JobKey]) -> None:
        """Names the jobs that will be asked for: one question may serve them all."""

    def job(self, run: RunPaths, job: JobKey) -> Sight:
        """The life of a submission's job."""

    def holder(self, run: RunPaths, claim: Claim) -> Sight:
        """The life of the supervisor that holds a claim."""


class NobodyKnows:
    """Where only the directory can be looked at: what has no end record may still run."""

    def expect(self, jobs: Iterable[JobKey]) -> None:
        return None

    def job(self, run: RunPaths, job: JobKey) -> Sight:
        return Sight(Life.UNKNOWN if job.id else Life.DEAD)

    def holder(self, run: RunPaths, claim: Claim) -> Sight:
        return Sight(Life.UNKNOWN)


class Snapshot(Struct, frozen=True):
    """A run at one moment: its verdict and the records that decided it.

    `job` is the last submission's job, None where nothing was submitted or the run is over by
    its records alone. `holder`: the life of the last attempt's supervisor.
    """

    run: RunPaths
    verdict: Verdict
    submission: SubmissionPaths | None
    job_id: str | None
    attempt: Attempt | None
    job: JobKey | None = None
    holder: Life = Life.DEAD


def take(run: RunPaths, lives: Lives) -> Snapshot:
    """The state of a run, whatever else writes to it meanwhile. Raises OSError."""
    reading = _read(run)
    lives.expect(reading.jobs)
    return _decide(run, reading, lives)


def take_all(runs: Sequence[RunPaths], lives: Lives) -> list[Snapshot | OSError]:
    """The state of each run, with one question about all jobs; an error for what can't be read."""
    readings = [_attempted(run) for run in runs]
    lives.expect(job for each in readings if isinstance(each, _Reading) for job in each.jobs)
    found: list[Snapshot | OSError] = []
    for run, reading in zip(runs, readings, strict=True):
        try:
            found.append(_decide(run, reading, lives) if isinstance(reading, _Reading) else reading)
        except OSError as error:
            found.append(error)
    return found


def _attempted(run: RunPaths) -> _Reading | OSError:
    try:
        return _read(run)
    except OSError as error:
        return error


def _decide(run: RunPaths, reading: _Reading, lives: Lives) -> Snapshot:
    while True:
        if reading.settled:  # no life needs to be asked for
            return _judged(run, reading, _NOBODY, _NOBODY)
        job = lives.job(run, reading.job) if reading.job else _NOBODY
        holder = _holder(run, reading.attempt, job, lives)
        if Life.DEAD not in ((job.life, holder.life) if reading.attempt else (job.life,)):
            return _judged(run, reading, job, holder)
        # Who is dead by now may have written an end or another claim since the reading.
        again = _read(run)
        if again == reading:
            return _judged(run, reading, job, holder)
        reading = again


_NOBODY = Sight(Life.DEAD)


class _Reading(Struct, frozen=True):
    """What the directory says: its last submission and its last attempt."""

    submission: SubmissionPaths | None
    job_id: str | None
    attempt: Attempt | None
    job: JobKey | None  # of the submission, unless the run is settled

    @property
    def settled(self) -> bool:
        """The last attempt ended for good, and nothing was submitted since."""
        return _is_settled(self.submission, self.attempt)

    @property
    def jobs(self) -> list[JobKey]:
        """What will be asked for."""
        if self.settled:
            return []
        claim = self.attempt.claim if self.attempt else None
        found = [self.job] if self.job else []
        if claim is not None and (self.job is None or self.job.id != claim.job_id):
            is_local = is_local_id(claim.job_id)
            found.append(JobKey(claim.job_id, claim.key, is_local, uid=claim.uid))
        return found


def _is_settled(submission: SubmissionPaths | None, attempt: Attempt | None) -> bool:
    if attempt is None or attempt.end is None or attempt.end.will_restart:
        return False
    if submission is None:
        return True
    return attempt.claim is not None and submission.number <= attempt.claim.submission


def _read(run: RunPaths) -> _Reading:
    submissions = iter_submissions(run)
    submission = submissions[-1] if submissions else None
    job_id = read_job_id(submission) if submission else None
    attempt = last_attempt(run)
    job = None
    if submission is not None and not _is_settled(submission, attempt):
        job = _job_key(submission, job_id)
    return _Reading(submission, job_id, attempt, job)


def _job_key(submission: SubmissionPaths, job_id: str | None) -> JobKey:
    if job_id is not None and is_local_id(job_id):
        return JobKey(job_id, None, is_local=True)
    intent = read_intent(submission)
    since = intent.t if intent else 0.0
    if job_id is not None:
        with suppress(OSError):
            since = max(since, submission.job_id.stat().st_mtime)
    if intent is None:
        return JobKey(job_id, None, job_id is None, since)
    is_local = intent.scheduler == "local" and job_id is None
    if is_local and intent.leader is not None:
        return JobKey(_sequence(submission, intent.leader), None, is_local=True)
    return JobKey(
        job_id,
        intent.key,
        is_local,
        since,
        task=intent.task,
        uid=intent.uid,
        cluster=intent.cluster,
    )


def _sequence(submission: SubmissionPaths, leader: str) -> str | None:
    """The job that starts a sweep's runs one after the other, and has not come to this one."""
    run = RunPaths(submission.folder.parent.parent.with_name(leader))
    try:
        text = read_capped(run.submission(0).array_job_id, _LONGEST_ID).decode("ascii", "replace")
    except OSError:
        return None
    return text.strip() or None


def _holder(run: RunPaths, attempt: Attempt | None, job: Sight, lives: Lives) -> Sight:
    if attempt is None:
        return _NOBODY
    if attempt.claim is None:  # who holds it can't be read: its job is the best witness
        return Sight(Life.UNKNOWN, note=job.note) if job.lost else job
    return lives.holder(run, attempt.claim)


def _judged(run: RunPaths, reading: _Reading, job: Sight, holder: Sight) -> Snapshot:
    submissions, attempts = [], []
    if submission := reading.submission:
        submissions.append(
            SubmissionFacts(
                submission.number,
                started=reading.job_id is not None,
                job=job.life,
                cause=job.cause,
                held=job.held,
                # The job's output is made when it begins: then it was no submission that got lost.
                lost=job.lost and not submission.output.exists(),
                note=job.note,
            )
        )
    if attempt := reading.attempt:
        number = attempt.claim.submission if attempt.claim else None
        asked = not reading.settled or (attempt.end and attempt.end.cause is Cause.CANCELLED)
        stop = stop_reason(run, attempt.number) if asked else None  # of thousands, few were asked
        attempts.append(
            AttemptFacts(
                attempt.number, number, holder.life, attempt.end, stop=stop, note=holder.note
            )
        )
    next_stop = None if reading.settled else stop_reason(run, next_attempt_number(run))
    verdict = judge(submissions, attempts, next_stop)
    return Snapshot(
        run,
        verdict,
        reading.submission,
        reading.job_id,
        reading.attempt,
        job=reading.job,
        holder=holder.life,
    )


def is_local_id(job_id: str) -> bool:
    """Whether a job id is that of a job without a scheduler."""
    return job_id.startswith(_LOCAL)


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
