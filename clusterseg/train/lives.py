"""What the attempts before say about the next failure and about the cost of a save."""

from __future__ import annotations

import math
from contextlib import suppress

from clusterseg.runs.attempts import Attempt, iter_attempts
from clusterseg.runs.checkpoint_file import CheckpointError, read_layout
from clusterseg.runs.heartbeat import read_heartbeat
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Cause, Claim
from clusterseg.train.interval import Life

_FAILURES = (Cause.CRASH, Cause.HANG, Cause.NODE_FAIL, Cause.OUT_OF_MEMORY, Cause.UNKNOWN)


def earlier_lives(paths: RunPaths, claim: Claim) -> list[Life]:
    """The lives of the attempts before `claim`; one whose claim can't be read is left out.

    An attempt that a stop ended in order, with all its steps saved, did not fail.
    """
    attempts = [one for one in iter_attempts(paths) if one.number < claim.attempt and one.claim]
    following = [*(one.claim for one in attempts[1:]), claim]
    return [
        _life(one, one.claim, after)
        for one, after in zip(attempts, following, strict=bool(attempts))
        if one.claim is not None and after is not None
    ]


def cost_before(paths: RunPaths, claim: Claim) -> float | None:
    """The cost of a save as the checkpoint has it that this attempt goes on from."""
    if claim.resume_from is None:
        return None
    try:
        return read_layout(paths.checkpoints / claim.resume_from).header.times.get("cost")
    except CheckpointError:  # `restore` says what is wrong with it
        return None


def _life(attempt: Attempt, claim: Claim, after: Claim) -> Life:
    end = attempt.end
    if end is None:  # killed; it may have been resumed days later
        return Life(max(0.0, min(_last_beat(attempt), after.t) - claim.t), failed=True)
    seconds = max(0.0, end.t - claim.t)
    lost = end.last_step is not None and end.last_step > after.resume_step
    return Life(seconds, failed=lost or end.cause in _FAILURES)


def _last_beat(attempt: Attempt) -> float:
    """When the supervisor last showed life; infinity if that is not known."""
    with suppress(OSError):
        if beat := read_heartbeat(attempt.paths.heartbeat):
            return beat.t
    return math.inf
