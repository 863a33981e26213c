"""Whether the attempt before is over, so that the next one may be claimed.

Nobody can be trusted to know that he lost a run, and from another host nobody can be seen to be
dead. So what can be told is told (a process of this host, the scheduler's word); else the holder
is asked to stop, and its heartbeat must stand still for longer than caches and beats take.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

from clusterseg.runs.attempts import Attempt, iter_attempts, read_attempt
from clusterseg.runs.control import StopReason, read_stop, request_stop
from clusterseg.runs.heartbeat import Heartbeat, read_heartbeat
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Claim, End, StopRequest


@dataclass(frozen=True)
class Wanted:
    """What the claimer says about itself; the fields are those of the claim.

    `argv_of` gives the launch line of an attempt, which may name that attempt's files.
    """

    submission: int
    key: str
    uid: int
    job_id: str
    restart_count: int
    host: str
    boot_id: str
    pid: int
    pid_start: int
    hosts: dict[str, int]
    ranks: int
    argv_of: Callable[[int], Sequence[str]]


class Witness(Protocol):
    """What the world says about an earlier holder. None: it can't be told from here."""

    def process_lives(self, claim: Claim) -> bool | None:
        """Whether its supervisor runs; False only if that is certain (this host, this boot)."""
        ...

    def job_lives(self, claim: Claim) -> bool | None:
        """Whether the scheduler still runs its job."""
        ...

    def clean_up(self, claim: Claim) -> None:
        """Ends what its ranks left behind on this host; its supervisor is known to be over."""
        ...

    def pause(self, seconds: float) -> None:
        """Waits; raises whatever should end the waiting."""
        ...

    def say(self, message: str) -> None:
        """Tells the person who looks at the job's output."""
        ...


@dataclass(frozen=True)
class Patience:
    """Seconds. `grace`: how long a heartbeat must stand still before its holder counts as gone.

    60 s of stale metadata on a shared file system, the holder's interval between two beats,
    and slack for a slow fsync. A holder whose beats fail ends itself after half of it.
    """

    interval: float = 5.0
    grace: float = 75.0
    look: float = 1.0


class Verdict(Enum):
    """What to do about the last attempt before claiming the next one."""

    FREE = "free"  # it is over
    FENCE = "fence"  # ask it to stop, wait until its heartbeat stands still
    OBSERVE = "observe"  # its heartbeat decides between FENCE and DUPLICATE
    DUPLICATE = "duplicate"  # another job runs this: we are the second one


def judge(
    previous: Claim | None,
    end: End | None,
    wanted: Wanted,
    *,
    process_lives: bool | None,
    job_lives: bool | None,
    held_before: bool = False,
) -> Verdict:
    """The rule for claiming after `previous`, from values alone.

    `held_before`: the claimer itself held an attempt before `previous`, and lost the run.
    """
    if held_before:  # it slept, or was cut off: whoever took over must not be asked to stop
        return Verdict.DUPLICATE
    if previous is None or process_lives is False or _is_same_process(previous, wanted):
        return Verdict.FREE
    if end is not None and not end.will_restart:
        return Verdict.FREE
    rests = Verdict.FENCE if end is None else Verdict.FREE
    if previous.job_id == wanted.job_id:
        # A higher count: we are an earlier start of this job that comes late; or the counter was
        # lost with the controller's state (22.05), and we are the new one. The heartbeat tells.
        return Verdict.OBSERVE if previous.restart_count > wanted.restart_count else rests
    return {None: Verdict.OBSERVE, True: Verdict.DUPLICATE, False: rests}[job_lives]


def is_over(
    paths: RunPaths,
    last: Attempt,
    previous: Claim,
    *,
    wanted: Wanted,
    witness: Witness,
    patience: Patience,
) -> bool:
    """True once attempt `previous` surely writes no more; False if another process holds it."""
    process_lives = witness.process_lives(previous)
    job_lives = process_lives if process_lives is False else witness.job_lives(previous)
    verdict = judge(
        previous,
        last.end,
        wanted,
        process_lives=process_lives,
        job_lives=job_lives,
        held_before=_held_before(paths, previous, wanted),
    )
    holder = f"attempt {previous.attempt} of job {previous.job_id} on {previous.host}"
    if verdict is Verdict.OBSERVE:
        witness.say(f"{holder} may still run: watching its heartbeat")
        if not _stands_still(paths, previous, witness, patience, patient=False):
            verdict = Verdict.DUPLICATE
    if verdict is Verdict.DUPLICATE:
        witness.say(f"{holder} holds the run: this is a duplicate, nothing is started")
        return False
    if last.end is None:
        # Also where it is known to be over: ranks of it may live on other hosts.
        hurry = None if verdict is Verdict.FENCE else time.time()
        _ask_to_stop(paths.stop_file(previous.attempt), deadline=hurry)
    if verdict is Verdict.FENCE:
        # Asked without a deadline: if it lives, what it saves now is what we resume from.
        witness.say(f"{holder} has no end: asked to stop, waiting for its heartbeat to stand still")
        _stands_still(paths, previous, witness, patience, patient=True)
    return True


def pass_cancel_on(paths: RunPaths, previous: Claim | None, claim: Claim) -> None:
    """A person's request that the attempt before got, but did not live to obey, is the next's.

    A new submission (`resume`) takes it back.
    """
    if previous is None or previous.submission != claim.submission:
        return
    request = read_stop(paths.stop_file(previous.attempt))
    if request is not None and _is_cancel(request) and read_end(paths, previous.attempt) is None:
        request_stop(paths.stop_file(claim.attempt), request.reason)


def beat_of(paths: RunPaths, claim: Claim | None) -> Heartbeat | None:
    return None if claim is None else read_heartbeat(paths.attempt(claim.attempt).heartbeat)


def woke(paths: RunPaths, claim: Claim, beat: Heartbeat | None, witness: Witness) -> bool:
    """Whether a holder that had stood still goes on, seen at the last moment.

    It would lose what it does until it notices the claim.
    """
    now = beat_of(paths, claim)
    if now is None or now == beat or read_end(paths, claim.attempt) is not None:
        return False
    witness.say(f"attempt {claim.attempt} beats again: looking at it anew")
    return True


def read_end(paths: RunPaths, attempt: int) -> End | None:
    """How an attempt ended; None while it runs, or if its supervisor was killed."""
    found = read_attempt(paths.attempt(attempt))
    return found.end if found else None


def boot_clock() -> float:
    """Seconds since boot, suspension included; no clock setting moves it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _held_before(paths: RunPaths, previous: Claim, wanted: Wanted) -> bool:
    """Whether the claimer's own process claimed an attempt before `previous`, which is not its."""
    if _is_same_process(previous, wanted):
        return False
    return any(
        attempt.claim is not None and _is_same_process(attempt.claim, wanted)
        for attempt in iter_attempts(paths)
    )


def _ask_to_stop(stop_file: Path, deadline: float | None) -> None:
    """Leaves a request that a person made: it also says what the run is to come to."""
    with suppress(FileNotFoundError):
        if not _is_cancel(read_stop(stop_file)):
            request_stop(stop_file, StopReason.SUPERSEDED, deadline)


def _is_cancel(request: StopRequest | None) -> bool:
    return request is not None and request.reason in (StopReason.CANCEL, StopReason.CANCEL_NOW)


def _stands_still(
    paths: RunPaths, claim: Claim, witness: Witness, patience: Patience, *, patient: bool
) -> bool:
    """Waits until the heartbeat of `claim` stands still for the grace, or it is over anyway.

    A beat makes the impatient one give up (False) and the patient one wait anew: a host that
    was written off may keep it moving for a while. So does a beat that can't be read, until
    that has lasted for the grace, too (OSError). It stood still from after the first look to
    before the last one: a claimer that was itself paused has seen nothing in between.
    """
    heartbeat = paths.attempt(claim.attempt).heartbeat
    beat: Heartbeat | None = None
    since: float | None = None  # after the first look that saw `beat`
    readable = boot_clock()
    while True:
        if witness.process_lives(claim) is False:
            return True
        end = read_end(paths, claim.attempt)
        if end is not None and (patient or not end.will_restart):
            return True
        before = boot_clock()
        try:
            now = read_heartbeat(heartbeat)
        except OSError:
            if before - readable >= patience.grace:
                raise
            since = None
        else:
            readable = before
            if since is not None and now is not None and now != beat:
                if not patient:
                    return False
                since = None
            if since is None:
                beat, since = now or beat, boot_clock()
            elif before - since >= patience.grace:
                return True
        witness.pause(patience.look)


def _is_same_process(claim: Claim, wanted: Wanted) -> bool:
    """Our own earlier attempt, whose end could not be written (a full disk)."""
    return (claim.host, claim.boot_id, claim.pid, claim.pid_start) == (
        wanted.host,
        wanted.boot_id,
        wanted.pid,
        wanted.pid_start,
    )
