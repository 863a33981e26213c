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

import msgspec

from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.runs import files
from clusterseg.runs.attempts import Attempt, iter_attempts, last_attempt
from clusterseg.runs.choice import newest_acceptable
from clusterseg.runs.control import StopReason, read_stop
from clusterseg.runs.fit import Fits, fits_all
from clusterseg.runs.paths import AttemptPaths, RunPaths
from clusterseg.runs.records import Claim, End
from clusterseg.runs.takeover import (
    Patience,
    Verdict,
    Wanted,
    Witness,
    beat_of,
    boot_clock,
    is_over,
    judge,
    pass_cancel_on,
    read_end,
    woke,
)

__all__ = [
    "Patience",
    "Verdict",
    "Wanted",
    "Witness",
    "claim_next",
    "is_superseded",
    "judge",
    "may_prune",
    "read_claims",
    "read_end",
    "write_end",
]


def claim_next(
    paths: RunPaths,
    wanted: Wanted,
    witness: Witness,
    patience: Patience | None = None,
    *,
    fits: Fits = fits_all,
) -> Claim | None:
    """Claims the next attempt; None if another process holds the run: touch nothing, exit 0.

    Waits as long as an earlier holder may still write. `fits` says which checkpoints are of this
    job (`newest_acceptable`). Raises CheckpointError if there are checkpoints but no good one that
    fits, ClustersegError for a damaged claim, OSError if the directory can't be read or written;
    nothing is claimed then.
    """
    patience = patience or Patience()
    while True:
        last = _last_claimed(paths, witness, patience)
        previous = last.claim if last is not None else None
        if last is not None and previous is not None:
            if not is_over(
                paths, last, previous, wanted=wanted, witness=witness, patience=patience
            ):
                return None
            witness.clean_up(previous)
        beat = beat_of(paths, previous)
        choice = newest_acceptable(paths, previous, fits)
        for message in choice.messages:
            witness.say(message)
        if previous is not None and woke(paths, previous, beat, witness):
            continue
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
        if _commit(paths, claim, previous):
            return claim
        # Somebody else was quicker: look again at who holds the run now.
        _wait_for_claim(paths, number, witness, patience)


def is_superseded(paths: RunPaths, claim: Claim) -> bool:
    """Whether the next attempt was claimed: the holder of this one must end without a word.

    May come as late as the file system's caches of names: what is written until then does not
    count, since the claim does not name it.
    """
    return _is_claimed(paths.attempt(claim.attempt + 1))


def may_prune(paths: RunPaths, claim: Claim) -> bool:
    """Whether the holder may delete checkpoints. Ask before each listing to choose from.

    Deleting can't be fenced. So besides the claims the stop file is opened afresh: it existed
    before and was written in its place, long before the next claim, so that no cache hides it.
    A process that is paused after the question deletes late, but only what its rules let go
    when it still held the run, and never the newest. Raises OSError.
    """
    request = read_stop(paths.stop_file(claim.attempt))
    # A request to cancel stays where the next claimer would ask to stop (`takeover`).
    fences = (StopReason.SUPERSEDED, StopReason.CANCEL, StopReason.CANCEL_NOW)
    asked = request is not None and request.reason in fences
    return not asked and not is_superseded(paths, claim)


def write_end(paths: RunPaths, end: End) -> bool:
    """Writes end.json of an attempt, once. Raises OSError.

    False, with nothing written, if the next attempt was claimed meanwhile: who lost the run (it
    was paused, or cut off) has no say in it any more.
    """
    attempt = paths.attempt(end.attempt)
    if _is_claimed(paths.attempt(end.attempt + 1)):
        return False
    files.commit_new(attempt.end, msgspec.json.encode(end) + b"\n")
    return True


def read_claims(paths: RunPaths) -> list[Claim]:
    """The claims by number; damaged ones are left out (`iter_attempts` names them)."""
    return [attempt.claim for attempt in iter_attempts(paths) if attempt.claim is not None]


def _last_claimed(paths: RunPaths, witness: Witness, patience: Patience) -> Attempt | None:
    """The last attempt, its claim read; None if there is none.

    A claim that is there but can't be read may be one that this host's caches don't show yet,
    or a file system's bad moment: given up only when it stays so.
    """
    since = boot_clock()
    said = False
    while True:
        last = last_attempt(paths)
        if last is None or last.claim is not None:
            return last
        why = "; ".join(last.problems)
        if boot_clock() - since >= patience.grace:
            raise ClustersegError(
                f"the claim of attempt {last.number} can't be read: {why}",
                code="damaged-claim",
                help="what it had accepted is not known any more; submit the job anew",
                exit_code=ExitCode.FAILED,
            )
        if not said:
            witness.say(f"the claim of attempt {last.number} can't be read yet: {why}")
            said = True
        witness.pause(patience.look)


def _wait_for_claim(paths: RunPaths, number: int, witness: Witness, patience: Patience) -> None:
    """Returns when the claim that was quicker than ours can be seen, or its archive."""
    since = boot_clock()
    while not _is_claimed(paths.attempt(number)):
        if boot_clock() - since >= 2 * patience.grace:
            raise ClustersegError(
                f"attempt {number} of {paths.run_id} was claimed, but its claim can't be seen",
                code="damaged-claim",
                help="this host's view of the file system is out of date; try another one",
                exit_code=ExitCode.FAILED,
            )
        witness.pause(patience.look)


def _is_claimed(attempt: AttemptPaths) -> bool:
    try:
        files.read_capped(attempt.claim, 1)
    except FileNotFoundError:
        return attempt.packed.exists()
    return True


def _commit(paths: RunPaths, claim: Claim, previous: Claim | None) -> bool:
    """Makes the attempt's folder, stop file and claim, in this order; False: not ours."""
    attempt = paths.attempt(claim.attempt)
    for folder in (paths.control, attempt.folder):
        files.make_private_dir(folder)
        # One that a killed claimer made may not be durable yet, and the claim will stand in it.
        files.sync_folder(folder.parent)
    files.make_empty(paths.stop_file(claim.attempt))
    # Before the claim: killed right after it, we could not pass it on any more.
    pass_cancel_on(paths, previous, claim)
    try:
        files.commit_new(attempt.claim, msgspec.json.encode(claim) + b"\n")
    except FileExistsError:
        return False
    files.make_private_dir(attempt.ranks)
    return True
