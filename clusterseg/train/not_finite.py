"""What follows when a step is not finite: it is skipped, left out after a rollback, or the end.

Such a step has changed nothing (`clusterseg.train.update`), and all ranks know of it. One that is
finite may still leave weights that are not: that shows in the next step, or as they are saved.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import NoReturn

from clusterseg.runs.attempts import Attempt, iter_attempts
from clusterseg.runs.eventlog import EventWriter, iter_events
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Cause, Claim, Event, NotFinite
from clusterseg.train.communicator import Communicator
from clusterseg.train.failures import TrainingError, warn
from clusterseg.train.progress import Progress

MOST_IN_A_ROW = 10  # steps: more are no accident of the data


class OnNan(StrEnum):
    """What is done about such a step; the values of `train.on_nan`."""

    STOP = "stop"
    SKIP = "skip"
    ROLLBACK = "rollback"


def decide(on_nan: str, step: int, skipped: Sequence[int]) -> OnNan:
    """For step `step` (from 1); `skipped` are the earlier ones that changed nothing, ascending.

    The skipped ones are part of a checkpoint, so a resume begins no new row.
    """
    if on_nan != OnNan.SKIP:
        return OnNan(on_nan)
    row = 0
    for earlier in reversed(skipped):
        if earlier != step - 1 - row:
            break
        row += 1
    return OnNan.SKIP if row < MOST_IN_A_ROW else OnNan.STOP


def is_left_to_the_next(on_nan: str, *, stops: bool) -> bool:
    """Whether the next attempt is to meet it: this one `stops` with all that was good before, and a
    rollback would throw that away."""
    return stops and on_nan == OnNan.ROLLBACK


def meet(
    on_nan: str, progress: Progress, loss_sum: float, events: EventWriter, *, leads: bool
) -> None:
    """The step after `progress` was not finite, its loss sum was `loss_sum`: says so.

    Returns if it is to be skipped, else raises TrainingError, on all ranks; `leads`: on this one
    the event is written.
    """
    step = progress.step + 1
    action = decide(on_nan, step, progress.skipped)
    what = "gradients" if math.isfinite(loss_sum) else "loss"  # or the statistics
    if leads:
        events.write(NotFinite(t=time.time(), rank=0, step=step, what=what, action=action))
    if action is OnNan.SKIP:
        return
    message = f"nan: the {what} of step {step} {'are' if what == 'gradients' else 'is'} not finite"
    if action is OnNan.ROLLBACK:
        help = "the next attempt goes on from the last checkpoint and leaves this step out"
        message += ": back to the last checkpoint"
    else:
        help = "lower the learning rate or add warm-up; the step has changed nothing"
    raise TrainingError(message, code="nan", agreed=True, help=help)


def meet_weights(
    on_nan: str, step: int, tensor: str, events: EventWriter, *, leads: bool
) -> NoReturn:
    """`step`, which was finite itself, has left `tensor` not finite: raises TrainingError, on all
    ranks. No skipping mends that, and a next attempt is to leave out this step, not one after it.
    """
    if leads:
        tell_weights(on_nan, step, events)
    message = f"nan: {tensor} is not finite after step {step}"
    if on_nan == OnNan.ROLLBACK:
        help = "the next attempt goes on from the last checkpoint and leaves this step out"
        message += ": back to the last checkpoint"
    else:
        help = "no step can mend it, nor be skipped for it: `resume` goes on from the last "
        help += "checkpoint; lower the learning rate, clip gradients or add warm-up"
    raise TrainingError(message, code="nan", agreed=True, help=help)


def tell_weights(on_nan: str, step: int, events: EventWriter) -> None:
    """The event that weights are not finite after `step`, on rank 0."""
    action = OnNan.ROLLBACK if on_nan == OnNan.ROLLBACK else OnNan.STOP
    events.write(NotFinite(t=time.time(), rank=0, step=step, what="weights", action=action))


def rolled_back(events: Iterable[Event]) -> set[int]:
    """The steps for which an attempt, by its events, was rolled back."""
    return {
        event.step
        for event in events
        if isinstance(event, NotFinite) and event.action == OnNan.ROLLBACK
    }


def left_out(paths: RunPaths, claim: Claim, communicator: Communicator) -> frozenset[int]:
    """The steps that an attempt leaves out, told to all ranks by rank 0.

    They are those that earlier attempts of the same submission were rolled back for: after a
    `resume`, which may bring another learning rate, each has its chance again.
    """
    found: set[int] = set()
    if communicator.rank == 0:
        try:
            for attempt in iter_attempts(paths):
                if _may_tell(attempt, claim):
                    for rank, stream in attempt.events():
                        if rank == 0:
                            found |= rolled_back(iter_events(stream))
                            break
        except OSError as error:  # what can't be read is met, and rolled back for, once more
            warn(f"events of an earlier attempt can't be read: {error}")
    return frozenset(json.loads(communicator.broadcast_text(json.dumps(sorted(found)))))


def _may_tell(attempt: Attempt, claim: Claim) -> bool:
    """Most attempts ended for another reason: their events, which may be long, are not read."""
    earlier, end = attempt.claim, attempt.end
    if earlier is None or earlier.submission != claim.submission:
        return False
    return earlier.attempt < claim.attempt and (end is None or end.cause is Cause.NAN)
