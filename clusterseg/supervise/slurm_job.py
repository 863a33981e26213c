"""What Slurm's answer about our own job means for the attempt that runs in it. Pure.

As seen with Slurm 22.05: while a job ends, its state is COMPLETING whatever ended it. What tells
is the reason (TimeLimit), PreemptTime (set when the grace time starts, gone after the requeue),
and the restart count, which has grown as soon as the job is queued again.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from clusterseg.cluster.slurm.allocation import Life
from clusterseg.cluster.slurm.jobs import WAITING, JobDetail, JobState
from clusterseg.runs.records import Cause
from clusterseg.supervise.causes import NEAR_THE_LIMIT

# `--signal` may come up to a minute early (manual of sbatch); and a little for clocks.
_EARLY = 75.0  # seconds


class Fate(StrEnum):
    """What Slurm is doing with the job."""

    RUNNING = "running"
    PREEMPTED = "preempted"  # its grace time runs
    TIME_LIMIT = "time_limit"
    CANCELLED = "cancelled"
    REQUEUED = "requeued"  # queued again, by Slurm or a person: this life is over
    OUT_OF_MEMORY = "out_of_memory"
    NODE_FAIL = "node_fail"
    UNKNOWN = "unknown"  # no answer


@dataclass(frozen=True)
class Word:
    """Slurm's word on the job. `ends` and `started` are unix seconds, None if not known."""

    fate: Fate
    ends: float | None = None
    started: float | None = None
    excluded: str = ""
    may_requeue: bool = True

    @property
    def requeued(self) -> bool:
        """Whether the job starts again without our doing."""
        return self.fate is Fate.REQUEUED


NO_WORD = Word(Fate.UNKNOWN)


def is_own(detail: JobDetail, key: str, uid: int) -> bool:
    """Whether an id still belongs to the job that was submitted under `key` by `uid`.

    A controller that crashes forgets a job and gives its id away. Only what is known to differ
    counts: some sites have comments of their own.
    """
    return detail.uid in (None, uid) and detail.key in (None, key)


def is_another_life(detail: JobDetail, hosts: Sequence[str], restart_count: int) -> bool:
    """Whether the job was queued again, or runs on other hosts than ours: this life is over."""
    elsewhere = detail.batch_host != "" and detail.batch_host not in hosts
    return detail.restarts > restart_count or elsewhere


def read_word(detail: JobDetail | None, restart_count: int) -> Word:
    """The meaning of `scontrol show job` for the life `restart_count` of the job."""
    if detail is None:
        return NO_WORD
    fate = _fate(detail, restart_count)
    return Word(
        fate,
        ends=detail.end if fate in (Fate.RUNNING, Fate.PREEMPTED) else None,
        started=detail.start,
        excluded=detail.excluded,
        may_requeue=detail.requeue,
    )


def _fate(detail: JobDetail, restart_count: int) -> Fate:  # noqa: PLR0911 (one line a rule)
    state, reason = detail.state, detail.reason
    if detail.restarts > restart_count or state in WAITING:
        return Fate.REQUEUED
    if detail.preempt is not None or state is JobState.PREEMPTED:
        return Fate.PREEMPTED
    if reason == "TimeLimit" or state in (JobState.TIMEOUT, JobState.DEADLINE):
        return Fate.TIME_LIMIT
    if reason in ("NodeDown", "NodeFail") or state in (JobState.NODE_FAIL, JobState.BOOT_FAIL):
        return Fate.NODE_FAIL
    if reason == "OutOfMemory" or state is JobState.OUT_OF_MEMORY:
        return Fate.OUT_OF_MEMORY
    if state in (JobState.CANCELLED, JobState.REVOKED):
        return Fate.CANCELLED
    # The batch step lives, so the job did not end by itself: somebody ended it.
    if state in (JobState.COMPLETING, JobState.COMPLETED, JobState.FAILED):
        return Fate.CANCELLED
    return Fate.UNKNOWN if state is JobState.UNKNOWN else Fate.RUNNING


_CAUSES = {
    Fate.PREEMPTED: Cause.PREEMPTED,
    Fate.TIME_LIMIT: Cause.TIME_LIMIT,
    Fate.CANCELLED: Cause.CANCELLED,
    Fate.OUT_OF_MEMORY: Cause.OUT_OF_MEMORY,
    Fate.NODE_FAIL: Cause.NODE_FAIL,
}


def cause_of_fate(word: Word) -> Cause | None:
    """Why an attempt has to stop, if Slurm's word says that it has to; None if it goes on."""
    if word.requeued:
        return Cause.PREEMPTED  # it has to make room, by whose wish ever
    return _CAUSES.get(word.fate)


def cause_of_notice(
    number: int, word: Word, seconds_left: float | None, near: float = NEAR_THE_LIMIT
) -> Cause:
    """What a signal at the batch step means, given Slurm's word.

    `near`: how many seconds before the end Slurm sends USR1 (`--signal`).
    """
    known = cause_of_fate(word)
    if known in (Cause.PREEMPTED, Cause.TIME_LIMIT, Cause.CANCELLED):
        return known
    if number == signal.SIGINT:
        return Cause.CANCELLED
    if number == signal.SIGUSR1 and seconds_left is not None and seconds_left <= near:
        return Cause.TIME_LIMIT
    return Cause.PREEMPTED


def true_cause(  # noqa: PLR0911 (one line a rule)
    cause: Cause,
    word: Word,
    lost: Sequence[str],
    printed: Cause | None = None,
    *,
    unasked: bool = False,
) -> Cause:
    """The cause of an attempt's end, given Slurm's word and the nodes that it calls lost.

    `cause` is what the ranks and the launcher show; `printed` what Slurm printed about the step,
    for when it does not answer. `unasked`: a program of the user's stopped, and nobody had asked it
    to. Slurm ends ranks before it tells the batch step (mpirun's daemons get TERM when the grace
    time starts), which looks like a crash.
    """
    if cause in (Cause.DONE, Cause.NAN):
        return cause
    said = printed if word.fate is Fate.UNKNOWN else _CAUSES.get(word.fate)
    if Cause.CANCELLED in (cause, said):
        return Cause.CANCELLED
    if cause is Cause.TIME_LIMIT:  # seen coming; what else happened on the way changes nothing
        return cause
    if cause is Cause.PREEMPTED:
        if unasked and word.fate is Fate.RUNNING:
            return Cause.CRASH  # a program that always exits 75 would be queued again for ever
        if lost and word.requeued:
            return Cause.NODE_FAIL
        return said if said is Cause.TIME_LIMIT else cause
    if cause is Cause.DISK_FULL:
        return cause
    if said is not None:
        return said
    if lost:
        return Cause.NODE_FAIL
    if word.requeued and cause is not Cause.OUT_OF_MEMORY:
        return Cause.NODE_FAIL if cause is Cause.NODE_FAIL else Cause.PREEMPTED
    return cause


def cause_of_life(life: Life | None) -> Cause:
    """Why a life of the job was killed, by the accounting; UNKNOWN without it."""
    if life is None:
        return Cause.UNKNOWN
    return {
        JobState.PREEMPTED: Cause.PREEMPTED,
        JobState.REQUEUED: Cause.PREEMPTED,
        JobState.TIMEOUT: Cause.TIME_LIMIT,
        JobState.NODE_FAIL: Cause.NODE_FAIL,
        JobState.OUT_OF_MEMORY: Cause.OUT_OF_MEMORY,
    }.get(life.state, Cause.UNKNOWN)


def notice_lead(options: Sequence[str]) -> float:
    """How early USR1 may come before the end of the job (`--signal=B:USR1@120`), in seconds."""
    for option in options:
        found = re.fullmatch(r"--signal=\S*@(\d+)", option)
        if found:
            return max(NEAR_THE_LIMIT, float(found[1]) + _EARLY)
    return NEAR_THE_LIMIT
