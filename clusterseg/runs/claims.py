"""Claims and ends of attempts: who may run, and how it ended. The lease of a run directory.

Attempt N is its `claim.json`, committed by link() and never rewritten: whoever commits it holds
the run. Nobody can be trusted to know that he lost it (a host that Slurm wrote off goes on
writing, a paused process wakes late), so the data is fenced as well: a claim names the
checkpoint that it builds on and every other one that still counts, and readers leave out what
earlier attempts wrote beyond that.

Slurm's restart count is no attempt number: after a crash of the controller a job can run a
second time with count 0.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import msgspec

from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.runs import files
from clusterseg.runs.attempts import Attempt, iter_attempts, last_attempt, read_attempt
from clusterseg.runs.checkpoints import newest_acceptable
from clusterseg.runs.control import StopReason, request_stop
from clusterseg.runs.heartbeat import read_heartbeat
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Claim, End


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


def claim_next(
    paths: RunPaths, wanted: Wanted, witness: Witness, patience: Patience | None = None
) -> Claim | None:
    """Claims the next attempt; None if another job holds the run: touch nothing, exit 0.

    Waits as long as an earlier holder may still write. Raises CheckpointError if there are
    checkpoints but no good one, ClustersegError for a damaged claim, OSError if the directory
    can't be written; nothing is claimed then.
    """
    patience = patience or Patience()
    while True:
        last = last_attempt(paths)
        previous = _claim_of(last)
        if last is not None and previous is not None:
            if not _is_over(
                paths, last, previous, wanted=wanted, witness=witness, patience=patience
            ):
                return None
            witness.clean_up(previous)
        choice = newest_acceptable(paths, previous)
        for message in choice.messages:
            witness.say(message)
        number = 0 if previous is None else previous.attempt + 1
        claim = Claim(
            t=time.time(),
            attempt=number,
            submission=wanted.submission,
            key=wanted.key,
            uid=wanted.uid,
            job_id=wanted.job_id,
            restart_count=wanted.restart_count,
            host=wanted.host,
            boot_id=wanted.boot_id,
            pid=wanted.pid,
            pid_start=wanted.pid_start,
            nonce=os.urandom(16).hex(),
            hosts=wanted.hosts,
            ranks=wanted.ranks,
            argv=list(wanted.argv_of(number)),
            resume_from=choice.newest.name if choice.newest else None,
            resume_step=choice.newest.header.step if choice.newest else 0,
            accepted=choice.accepted,
        )
        if _commit(paths, claim):
            return claim
        # Somebody else was quicker: look again at who holds the run now.


def judge(
    previous: Claim | None,
    end: End | None,
    wanted: Wanted,
    *,
    process_lives: bool | None,
    job_lives: bool | None,
) -> Verdict:
    """The rule for claiming after `previous`, from values alone."""
    if previous is None or process_lives is False or _is_same_process(previous, wanted):
        return Verdict.FREE
    same_job = previous.job_id == wanted.job_id
    if end is not None and (same_job or not end.will_restart or job_lives is False):
        return Verdict.FREE
    if same_job:
        return Verdict.FENCE
    if job_lives is None:
        return Verdict.OBSERVE
    return Verdict.DUPLICATE if job_lives else Verdict.FENCE


def is_superseded(paths: RunPaths, claim: Claim) -> bool:
    """Whether the next attempt was claimed: the holder of this one must end without a word."""
    try:
        files.read_capped(paths.attempt(claim.attempt + 1).claim, 1)
    except FileNotFoundError:
        return paths.attempt(claim.attempt + 1).packed.exists()
    return True


def write_end(paths: RunPaths, end: End) -> None:
    """Writes end.json of an attempt, once. Raises OSError."""
    files.commit_new(paths.attempt(end.attempt).end, msgspec.json.encode(end) + b"\n")


def read_claims(paths: RunPaths) -> list[Claim]:
    """The claims by number; damaged ones are left out (`iter_attempts` names them)."""
    return [attempt.claim for attempt in iter_attempts(paths) if attempt.claim is not None]


def read_end(paths: RunPaths, attempt: int) -> End | None:
    """How an attempt ended; None while it runs, or if its supervisor was killed."""
    found = read_attempt(paths.attempt(attempt))
    return found.end if found else None


def _claim_of(attempt: Attempt | None) -> Claim | None:
    if attempt is None:
        return None
    if attempt.claim is None:
        raise ClustersegError(
            f"the claim of attempt {attempt.number} can't be read: {'; '.join(attempt.problems)}",
            code="damaged-claim",
            help="what it had accepted is not known any more; submit the job anew",
            exit_code=ExitCode.FAILED,
        )
    return attempt.claim


def _is_over(
    paths: RunPaths,
    last: Attempt,
    previous: Claim,
    *,
    wanted: Wanted,
    witness: Witness,
    patience: Patience,
) -> bool:
    """True once attempt `previous` surely writes no more; False if another job holds it."""
    process_lives = witness.process_lives(previous)
    job_lives = process_lives if process_lives is False else witness.job_lives(previous)
    verdict = judge(previous, last.end, wanted, process_lives=process_lives, job_lives=job_lives)
    holder = f"attempt {previous.attempt} of job {previous.job_id} on {previous.host}"
    if verdict is Verdict.DUPLICATE:
        witness.say(f"{holder} is running: this is a duplicate, nothing is started")
        return False
    stop_file = paths.stop_file(previous.attempt)
    if verdict is Verdict.OBSERVE:
        witness.say(f"{holder} may still run: watching its heartbeat")
        if not _stands_still(paths, previous, witness, patience, patient=False):
            witness.say(f"{holder} is running: this is a duplicate, nothing is started")
            return False
        with suppress(FileNotFoundError):
            request_stop(stop_file, StopReason.SUPERSEDED, deadline=time.time())
    elif verdict is Verdict.FENCE:
        witness.say(f"{holder} has no end: asking it to stop, waiting for its heartbeat to stand")
        with suppress(FileNotFoundError):
            # Without a deadline: if it lives, what it saves now is what we resume from.
            request_stop(stop_file, StopReason.SUPERSEDED)
        _stands_still(paths, previous, witness, patience, patient=True)
    return True


def _stands_still(
    paths: RunPaths, claim: Claim, witness: Witness, patience: Patience, *, patient: bool
) -> bool:
    """Waits until the heartbeat of `claim` stands still for the grace, or it is over anyway.

    A beat makes the impatient one give up (False) and the patient one wait anew: a host that
    was written off may keep it moving for a while.
    """
    beat = read_heartbeat(paths.attempt(claim.attempt).heartbeat)
    since = _boot_clock()
    while _boot_clock() - since < patience.grace:
        if witness.process_lives(claim) is False:
            return True
        end = read_end(paths, claim.attempt)
        if end is not None and (patient or not end.will_restart):
            return True
        witness.pause(patience.look)
        now = read_heartbeat(paths.attempt(claim.attempt).heartbeat)
        if now is not None and now != beat:
            if not patient:
                return False
            beat, since = now, _boot_clock()
    return True


def _commit(paths: RunPaths, claim: Claim) -> bool:
    """Makes the attempt's folder, stop file and claim, in this order; False: not ours."""
    attempt = paths.attempt(claim.attempt)
    for folder in (paths.control, attempt.folder):
        files.make_private_dir(folder)
    files.make_empty(paths.stop_file(claim.attempt))
    try:
        files.commit_new(attempt.claim, msgspec.json.encode(claim) + b"\n")
    except FileExistsError:
        return False
    files.make_private_dir(attempt.ranks)
    return True


def _is_same_process(claim: Claim, wanted: Wanted) -> bool:
    """Our own earlier attempt, whose end could not be written (a full disk)."""
    return (claim.host, claim.boot_id, claim.pid, claim.pid_start) == (
        wanted.host,
        wanted.boot_id,
        wanted.pid,
        wanted.pid_start,
    )


def _boot_clock() -> float:
    """Seconds since boot, suspension included; no clock setting moves it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
