"""Throughput over wall time, in few enough stretches to draw."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from clusterseg.collect.windows import Windows

# Stretches an attempt: more than a plot has pixels for is of no use.
_MOST = 400


@dataclass(frozen=True)
class Stretch:
    """Neighbouring windows of one attempt: they ended at `t` (unix seconds).

    `replayed`: a later attempt had to do them again.
    """

    attempt: int
    t: float
    seconds: float
    images_per_second: float
    replayed: bool


def stretches(attempt: int, windows: Windows, limit: int | None) -> Iterator[Stretch]:
    """The attempt's windows but its first, a stretch being replayed or counted as a whole.

    A window across the limit counts as replayed here: it is one point of a picture.
    """
    each = max(1, -(-(len(windows.step) - 1) // _MOST))
    images = 0
    seconds = 0.0
    held = 0
    for at in range(1, len(windows.step)):
        images += windows.images[at]
        seconds += windows.seconds[at]
        held += 1
        replayed = _is_beyond(windows, at, limit)
        last = at + 1 == len(windows.step)
        if held == each or last or _is_beyond(windows, at + 1, limit) != replayed:
            if seconds > 0:
                yield Stretch(attempt, windows.t[at], seconds, images / seconds, replayed)
            images, seconds, held = 0, 0.0, 0


def _is_beyond(windows: Windows, at: int, limit: int | None) -> bool:
    return limit is not None and windows.step[at] > limit
