"""What the attempts before say about the next failure and about the cost of a save."""

from __future__ import annotations

from clusterseg.runs.attempts import iter_attempts
from clusterseg.runs.checkpoint_file import CheckpointError, read_layout
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Cause, Claim, End
from clusterseg.train.interval import Life

_FAILURES = (Cause.CRASH, Cause.HANG, Cause.NODE_FAIL, Cause.OUT_OF_MEMORY, Cause.UNKNOWN)


def earlier_lives(paths: RunPaths, claim: Claim) -> list[Life]:
    """The lives of the attempts before `claim`; one whose claim can't be read is left out.

    An attempt that a stop ended in order, with all its steps saved, did not fail.
    """
    attempts = [one for one in iter_attempts(paths) if one.number < claim.attempt and one.claim]
    following = [*(one.claim for one in attempts[1:]), claim]
    return [
        _life(one.claim, one.end, after)
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


def _life(claim: Claim, end: End | None, after: Claim) -> Life:
    seconds = max(0.0, (end.t if end else after.t) - claim.t)
    if end is None:
        return Life(seconds, failed=True)
    lost = end.last_step is not None and end.last_step > after.resume_step
    return Life(seconds, failed=lost or end.cause in _FAILURES)
