"""Slurm's jobs as values: states, their order, and how a job is known as ours. Pure.

A job is (submission key, uid, id), never an id alone: after a crash of the controller an id that
was just acknowledged is given to somebody else's job. The key stands in the job's comment, and
its first digits in the job's name.
"""

from __future__ import annotations

import re
from enum import StrEnum

from msgspec import Struct

KEY_IN_NAME = 12  # hex digits


class JobState(StrEnum):
    """The states of squeue and sacct (manual of squeue, JOB STATE CODES)."""

    PENDING = "PENDING"
    CONFIGURING = "CONFIGURING"
    RUNNING = "RUNNING"
    COMPLETING = "COMPLETING"
    SUSPENDED = "SUSPENDED"
    STOPPED = "STOPPED"
    SIGNALING = "SIGNALING"
    STAGE_OUT = "STAGE_OUT"
    REQUEUED = "REQUEUED"
    REQUEUE_HOLD = "REQUEUE_HOLD"
    REQUEUE_FED = "REQUEUE_FED"
    SPECIAL_EXIT = "SPECIAL_EXIT"
    RESV_DEL_HOLD = "RESV_DEL_HOLD"
    RESIZING = "RESIZING"
    COMPLETED = "COMPLETED"
    CANCELLED = "CANCELLED"
    FAILED = "FAILED"
    TIMEOUT = "TIMEOUT"
    NODE_FAIL = "NODE_FAIL"
    PREEMPTED = "PREEMPTED"
    BOOT_FAIL = "BOOT_FAIL"
    DEADLINE = "DEADLINE"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    REVOKED = "REVOKED"
    UNKNOWN = "UNKNOWN"  # none of Slurm's: a word that is not known here


OVER = frozenset(
    {
        JobState.COMPLETED,
        JobState.CANCELLED,
        JobState.FAILED,
        JobState.TIMEOUT,
        JobState.NODE_FAIL,
        JobState.PREEMPTED,
        JobState.BOOT_FAIL,
        JobState.DEADLINE,
        JobState.OUT_OF_MEMORY,
        JobState.REVOKED,
    }
)
# States in which a job waits only until a person (or its program) lets it go on.
_HELD = frozenset({JobState.REQUEUE_HOLD, JobState.SPECIAL_EXIT, JobState.RESV_DEL_HOLD})
_QUEUED_AGAIN = frozenset({JobState.REQUEUED, JobState.REQUEUE_FED, *_HELD})
WAITING = frozenset({JobState.PENDING, *_QUEUED_AGAIN})
_ENDING = frozenset({JobState.COMPLETING, JobState.STAGE_OUT})


class JobFacts(Struct, frozen=True, kw_only=True):
    """A job as one line of squeue has it.

    `id` is what Slurm's commands take: "12", or "12_3" for a task of an array. `key` is that of
    the submission, None for a job that is not ours. Times are unix seconds, None if not known;
    the `start` of a job that waits is what Slurm expects.
    """

    id: str
    number: int
    state: JobState
    reason: str = ""
    key: str | None = None
    name: str = ""
    partition: str = ""
    nodes: int = 0
    node_list: str = ""
    submitted: float | None = None
    start: float | None = None
    end: float | None = None
    priority: int | None = None

    @property
    def is_over(self) -> bool:
        return self.state in OVER

    @property
    def is_held(self) -> bool:
        """Whether nothing will happen until somebody releases it."""
        if self.state in _HELD:
            return True
        return self.state in WAITING and "held" in self.reason.lower()

    @property
    def progress(self) -> Progress:
        started = self.start if self.state not in WAITING else None
        return Progress(self.state, self.submitted, started)


class JobDetail(Struct, frozen=True, kw_only=True):
    """A job as `scontrol show job` has it; times in unix seconds, `time_limit` in seconds.

    `uid` and `key` are None, and `state` is UNKNOWN, where free text in it looks like these
    fields: such a job is nobody's whom we know.
    """

    id: str
    number: int
    state: JobState
    reason: str = ""
    key: str | None = None
    comment: str = ""
    uid: int | None = None
    submitted: float | None = None
    start: float | None = None
    end: float | None = None
    preempt: float | None = None
    time_limit: int | None = None
    restarts: int = 0
    requeue: bool = False
    batch_host: str = ""
    node_list: str = ""
    excluded: str = ""

    @property
    def is_over(self) -> bool:
        return self.state in OVER

    @property
    def held(self) -> bool:
        """Whether nothing will happen until somebody releases it."""
        if self.state in _HELD:
            return True
        return self.state in WAITING and "held" in self.reason.lower()


class Progress(Struct, frozen=True):
    """How far a job has come. `submitted` changes with each requeue; `start` is of this life."""

    state: JobState
    submitted: float | None = None
    start: float | None = None


def later(known: Progress, said: Progress | None) -> Progress:
    """What to believe after `known`, if an answer says `said` (None: it knows nothing of it).

    A partial order: an answer that is old, empty or not understood never moves a job back, and
    an end is final. What moves a job back is a requeue, told by a newer submission or start.
    """
    if said is None or said.state is JobState.UNKNOWN:
        return known
    if known.state is JobState.UNKNOWN:
        return said
    for before, now in ((known.submitted, said.submitted), (known.start, said.start)):
        if before is not None and now is not None and before != now:
            return said if now > before else known
    if known.state in _QUEUED_AGAIN or said.state in _QUEUED_AGAIN:
        return said  # between two lives
    if _stage(said.state) == _stage(known.state):
        return known if known.state in OVER else said
    return said if _stage(said.state) > _stage(known.state) else known


def _stage(state: JobState) -> int:
    """The way of one life of a job."""
    if state in WAITING:
        return 0
    if state is JobState.CONFIGURING:
        return 1
    if state in _ENDING:
        return 3
    return 4 if state in OVER else 2


def is_over(state: JobState) -> bool:
    """Whether nothing runs any more; a requeue may still follow."""
    return state in OVER


def job_state(text: str) -> JobState:
    """Slurm's word for a state, with what it may add ("CANCELLED by 1000", "CANCELLED+")."""
    word = text.strip().partition(" ")[0].rstrip("+")
    try:
        return JobState(word)
    except ValueError:
        return JobState.UNKNOWN


def job_name(name: str, key: str) -> str:
    """The job's name: for people, and a second place for the key."""
    return f"{name}.{key[:KEY_IN_NAME]}"


def job_comment(key: str) -> str:
    return f"clusterseg:{key}"


def key_of(comment: str) -> str | None:
    """The key in a job's comment, None if it is not one of ours."""
    found = _COMMENT.fullmatch(comment.strip())
    return found[1] if found else None


def carries(facts: JobFacts, key: str) -> bool:
    """Whether a job of this user is that of the submission with this key.

    Sites rewrite comments; the name then is the witness.
    """
    if facts.key is not None:
        return facts.key == key
    return facts.name.endswith(f".{key[:KEY_IN_NAME]}") and len(key) >= KEY_IN_NAME


def key_begins(facts: JobFacts) -> str | None:
    """The first digits of the key that a job carries, in its comment or else in its name."""
    if facts.key is not None:
        return facts.key[:KEY_IN_NAME]
    found = _NAME.search(facts.name)
    return found[1] if found else None


_NAME = re.compile(rf"\.([0-9a-f]{{{KEY_IN_NAME}}})\Z")
_COMMENT = re.compile(r"clusterseg:([0-9a-f]{32})")
