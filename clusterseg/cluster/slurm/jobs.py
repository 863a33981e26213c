"""Slurm's jobs as values: states, and what squeue and scontrol print. Pure.

A job is (submission key, uid, id), never an id alone: after a crash of the controller an id that
was just acknowledged is given to somebody else's job. The key stands in the job's comment.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from enum import StrEnum

from msgspec import Struct


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
WAITING = frozenset(
    {
        JobState.PENDING,
        JobState.REQUEUED,
        JobState.REQUEUE_HOLD,
        JobState.REQUEUE_FED,
        JobState.SPECIAL_EXIT,
        JobState.RESV_DEL_HOLD,
    }
)


class JobFacts(Struct, frozen=True, kw_only=True):
    """A job as one line of squeue has it.

    `id` is what Slurm's commands take: "12", or "12_3" for a task of an array. `key` is that of
    the submission, None for a job that is not ours. Times are unix seconds, None if not known.
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
        return self.state in WAITING and self.reason.startswith("JobHeld")


class JobDetail(Struct, frozen=True, kw_only=True):
    """A job as `scontrol show job` has it; times in unix seconds, `time_limit` in seconds."""

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


def job_state(text: str) -> JobState:
    """Slurm's word for a state, with what it may add ("CANCELLED by 1000", "CANCELLED+")."""
    word = text.strip().split(" ", 1)[0].rstrip("+")
    try:
        return JobState(word)
    except ValueError:
        return JobState.UNKNOWN


def job_name(name: str, key: str) -> str:
    """The job's name: for people, and a second place for the key."""
    return f"{name}.{key[:12]}"


def job_comment(key: str) -> str:
    return f"clusterseg:{key}"


def key_of(comment: str) -> str | None:
    """The key in a job's comment, None if it is not one of ours."""
    found = _COMMENT.fullmatch(comment.strip())
    return found[1] if found else None


_COMMENT = re.compile(r"clusterseg:([0-9a-f]{32})")

# The fields of one line of squeue. The name and the comment are free text and stand last.
QUEUE_FORMAT = "%A|%i|%T|%V|%S|%e|%Q|%P|%D|%r|%N|%k|%j"
_QUEUE_FIELDS = QUEUE_FORMAT.count("|") + 1
_ID = re.compile(r"\d+(?:_\d+)?")


def read_queue(lines: Iterable[str]) -> Iterator[JobFacts]:
    """The jobs in squeue's lines (`QUEUE_FORMAT`); what is none is passed over."""
    for line in lines:
        fields = line.rstrip("\n").split("|", _QUEUE_FIELDS - 1)
        if len(fields) != _QUEUE_FIELDS or not fields[0].isdigit() or not _ID.fullmatch(fields[1]):
            continue
        number, job_id, state, submitted, start, end, priority, partition, nodes = fields[:9]
        reason, node_list, comment, name = fields[9:]
        yield JobFacts(
            id=job_id,
            number=int(number),
            state=job_state(state),
            reason=reason.strip(),
            key=key_of(comment),
            name=name,
            partition=partition,
            nodes=int(nodes) if nodes.isdigit() else 0,
            node_list=node_list,
            submitted=unix_time(submitted),
            start=unix_time(start),
            end=unix_time(end),
            priority=int(priority) if priority.isdigit() else None,
        )


def read_detail(text: str) -> JobDetail | None:
    """The job in one line of `scontrol -o show job`; None if there is none in it."""
    fields = _fields(text)
    number = fields.get("JobId", "")
    if not number.isdigit():
        return None
    array, task = fields.get("ArrayJobId", ""), fields.get("ArrayTaskId", "")
    uid = re.search(r"\((\d+)\)", fields.get("UserId", ""))
    restarts = fields.get("Restarts", "")
    return JobDetail(
        id=f"{array}_{task}" if array and task.isdigit() else number,
        number=int(number),
        state=job_state(fields.get("JobState", "")),
        reason=fields.get("Reason", ""),
        key=key_of(fields.get("Comment", "")),
        comment=fields.get("Comment", ""),
        uid=int(uid[1]) if uid else None,
        submitted=unix_time(fields.get("SubmitTime", "")),
        start=unix_time(fields.get("StartTime", "")),
        end=unix_time(fields.get("EndTime", "")),
        preempt=unix_time(fields.get("PreemptTime", "")),
        time_limit=time_limit(fields.get("TimeLimit", "")),
        restarts=int(restarts) if restarts.isdigit() else 0,
        requeue=fields.get("Requeue") == "1",
        batch_host=fields.get("BatchHost", ""),
        node_list=_named(fields.get("NodeList", "")),
        excluded=_named(fields.get("ExcNodeList", "")),
    )


def unix_time(text: str) -> float | None:
    """A time as Slurm prints it without SLURM_TIME_FORMAT (local time, ISO 8601)."""
    try:
        return time.mktime(time.strptime(text.strip(), "%Y-%m-%dT%H:%M:%S"))
    except (ValueError, OverflowError):
        return None


def time_limit(text: str) -> int | None:
    """Seconds of `[days-]hours:minutes:seconds`; None for UNLIMITED and what is no time."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", text.strip())
    if not found:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _fields(text: str) -> dict[str, str]:
    """`Name=value` pairs; the first of a name counts, for free text (a comment) comes later."""
    found: dict[str, str] = {}
    for name, value in _FIELD.findall(text.strip()):
        found.setdefault(name, value.strip())
    return found


_FIELD = re.compile(r"(?:^|\s)([A-Z][A-Za-z/:]*)=(.*?)(?=\s+[A-Z][A-Za-z/:]*=|\s*$)", re.DOTALL)


def _named(nodes: str) -> str:
    return "" if nodes in ("(null)", "None") else nodes
