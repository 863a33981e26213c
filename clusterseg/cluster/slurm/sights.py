"""From Slurm's answers to what is believed of a job and of a supervisor. Pure.

Silence, garbage and forgetfulness of Slurm never mean that something is dead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from clusterseg.cluster.slurm.answers import AccountFacts
from clusterseg.cluster.slurm.jobs import WAITING, JobFacts, JobState, carries
from clusterseg.cluster.slurm.queue import NO_SQUEUE, Answer
from clusterseg.runs.heartbeat import Heartbeat
from clusterseg.runs.records import Cause, Claim
from clusterseg.runs.snapshot import JobKey, Sight
from clusterseg.runs.state import Life

SETTLE = 5.0  # seconds after a submission before "not in the queue" says anything
SUBMITTING = 60.0  # seconds that a client may well take to submit
_SLACK = 5.0  # seconds that clocks of one cluster may differ
_ZOMBIE = 60.0  # seconds after which what does not beat does not write either

_CAUSES = {
    JobState.COMPLETED: Cause.DONE,
    JobState.CANCELLED: Cause.CANCELLED,
    JobState.REVOKED: Cause.CANCELLED,
    JobState.TIMEOUT: Cause.TIME_LIMIT,
    JobState.DEADLINE: Cause.TIME_LIMIT,
    JobState.PREEMPTED: Cause.PREEMPTED,
    JobState.NODE_FAIL: Cause.NODE_FAIL,
    JobState.BOOT_FAIL: Cause.NODE_FAIL,
    JobState.OUT_OF_MEMORY: Cause.OUT_OF_MEMORY,
}


class Known(Struct, frozen=True):
    """All that Slurm says: its queue, and the accounts of jobs that it has forgotten."""

    answer: Answer
    accounts: Mapping[str, AccountFacts]
    now: float  # unix seconds
    by_key: Mapping[str, Sequence[JobFacts]] = {}  # the jobs of each submission
    uid: int | None = None  # whose jobs the queue shows; None: of everybody who is asked for
    cluster: str | None = None  # whose queue it is, None if that is not known

    def find(self, job_id: str, key: str | None, *, adopted: bool) -> JobFacts | None:
        """The job, if it is this submission's. `adopted`: given to sbatch by a person, so that it
        may carry no key."""
        for facts in (self.answer.jobs.get(job_id), self.answer.ended.get(job_id)):
            if facts is not None and _is_ours(facts, key, adopted):
                return facts
        array, _, task = job_id.partition("_")
        whole = self.answer.jobs.get(array) or self.answer.ended.get(array)
        # An array that was cancelled while it waited is told of as one job.
        if task and whole is not None and whole.is_over and _is_ours(whole, key, adopted):
            return whole
        account = self.accounts.get(job_id)
        if account is None:
            return None
        facts = _as_facts(account)
        return facts if facts.is_over and _is_ours(facts, key, adopted) else None

    @property
    def silence(self) -> str | None:
        """Why this may be old, for a person; None if Slurm answers."""
        answer = self.answer
        if answer.silent_since is None:
            return None
        if answer.error == NO_SQUEUE:
            return f"Slurm can't be asked from here: {answer.error}"
        silent = max(0.0, self.now - answer.silent_since)
        return f"Slurm has not answered for {_duration(silent)}"

    @property
    def answers(self) -> bool:
        return self.answer.asked > 0 and self.answer.silent_since is None


def job_sight(job: JobKey, known: Known, *, adopted: bool = False) -> Sight:
    """What is believed of a submission's job."""
    if job.id is None:
        return _unrecorded(job, known)
    facts = known.find(job.id, job.key, adopted=adopted)
    if facts is not None:
        return _found(facts, known)
    if away := elsewhere(job.uid, job.cluster, known):
        return Sight(Life.UNKNOWN, note=away)
    if not known.answers:
        return Sight(Life.UNKNOWN, note=known.silence)
    if known.answer.asked < job.since + SETTLE:  # the answer is older than the job
        return Sight(Life.UNKNOWN)
    return Sight(Life.DEAD, lost=True, note=_absence(job.id, known))


def elsewhere(uid: int | None, cluster: str | None, known: Known) -> str | None:
    """Why this queue can't show a job, for a person; None if it can."""
    if uid is not None and known.uid is not None and uid != known.uid:
        return f"its job is that of another user (uid {uid}), about whose jobs Slurm is not asked"
    if cluster is not None and known.cluster is not None and cluster != known.cluster:
        return f"its job is in the cluster {cluster}, which can't be asked from here"
    return None


def holder_sight(
    claim: Claim, facts: JobFacts | None, beat: Heartbeat, known: Known, *, ended: bool = False
) -> Sight:
    """What is believed of the supervisor that claimed; `facts`: its job, if Slurm tells of it.

    `ended`: its attempt has its end record, and nobody writes to it any more.
    UNKNOWN with the note of absence where Slurm has forgotten the job: only the heartbeat tells.
    """
    if facts is None:
        note = _absence(claim.job_id, known) if known.answers else known.silence
        return Sight(Life.UNKNOWN, note=note)
    if facts.state is JobState.UNKNOWN or claim.t > known.answer.asked:
        return Sight(Life.UNKNOWN, note=known.silence)  # the claim is newer than the answer
    writes = beat.t > known.now - _ZOMBIE
    if facts.is_over:
        return _holder_of_ended(facts, writes)
    if facts.state in WAITING or facts.state is JobState.CONFIGURING:
        if claim.t + 2 * _SLACK > known.answer.asked:
            return Sight(Life.UNKNOWN, note=known.silence)
        return Sight(
            Life.DEAD, note=_queued_again(facts, claim, writes and not ended) or known.silence
        )
    # Started after the last sign of this supervisor: it was of the job's life before.
    is_earlier = facts.start is not None and max(claim.t, beat.t) + _SLACK < facts.start
    return Sight(Life.DEAD if is_earlier else Life.ALIVE, note=known.silence)


def _holder_of_ended(facts: JobFacts, writes: bool) -> Sight:
    if writes and facts.state in (JobState.NODE_FAIL, JobState.BOOT_FAIL):
        # A node that Slurm wrote off may only be unreachable, and its script goes on.
        note = f"Slurm says {facts.state} of job {facts.id}, but its attempt still writes"
        return Sight(Life.UNKNOWN, note=note)
    return Sight(Life.DEAD)


def _found(facts: JobFacts, known: Known) -> Sight:
    if facts.is_over:
        cause = _CAUSES.get(facts.state)
        return Sight(Life.DEAD, cause, note=f"Slurm says {facts.state} of job {facts.id}")
    if facts.state is JobState.UNKNOWN:
        return Sight(Life.UNKNOWN, note=f"Slurm gives job {facts.id} a state that is not known")
    if facts.is_held:
        # What an administrator holds, only he can release.
        by_user = facts.reason != "JobHeldAdmin"
        note = f"job {facts.id} is held in Slurm ({facts.reason or facts.state})"
        return Sight(Life.ALIVE, held=by_user, note=note)
    return Sight(Life.ALIVE, note=known.silence)


def _unrecorded(job: JobKey, known: Known) -> Sight:
    """A submission whose client has recorded no id: its job may be there all the same."""
    if away := elsewhere(job.uid, job.cluster, known):
        return Sight(Life.UNKNOWN, note=away)
    facts = _first_of(job, known)
    if facts is not None and not facts.is_over:
        note = f"its submission was not finished: job {facts.id} waits for it"
        return Sight(Life.ALIVE, held=True, note=note)
    if not known.answers:
        return Sight(Life.UNKNOWN, note=known.silence)
    if known.now - job.since < SUBMITTING:
        return Sight(Life.DEAD, note="it is being submitted, or its client was killed")
    return Sight(Life.DEAD)


def _first_of(job: JobKey, known: Known) -> JobFacts | None:
    """The job with the key that counts: one that is not over, the lowest id."""
    found = known.by_key.get(job.key, ()) if job.key else ()
    end = "" if job.task is None else f"_{job.task}"
    fitting = [facts for facts in found if facts.id.endswith(end)]
    return min(fitting, key=lambda facts: (facts.is_over, facts.number), default=None)


def _is_ours(facts: JobFacts, key: str | None, adopted: bool) -> bool:
    if key is not None and carries(facts, key):
        return True
    return adopted and facts.key is None


def _as_facts(account: AccountFacts) -> JobFacts:
    return JobFacts(
        id=account.id,
        number=account.number,
        state=account.state,
        name=account.name,
        submitted=account.submitted,
        start=account.start,
        end=account.end,
    )


def _absence(job_id: str, known: Known) -> str:
    if job_id in known.answer.jobs:
        return f"job {job_id} of Slurm is another one: it does not carry this run's key"
    return f"Slurm does not know job {job_id} (any more)"


def _queued_again(facts: JobFacts, claim: Claim, writes: bool) -> str | None:
    if facts.is_held:
        return f"Slurm queued job {facts.id} again, and holds it ({facts.reason or facts.state})"
    if writes:
        return f"Slurm queued job {facts.id} again; attempt {claim.attempt} still writes"
    return None


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
