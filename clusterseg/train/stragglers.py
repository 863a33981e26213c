"""Which ranks compute more slowly than the others, found while the run goes on.

A score is the smallest median of compute seconds per step over the ranks ÷ a rank's own, a
straggler's is below 0.75: as `collect` computes it afterwards, over an epoch at a time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median

from clusterseg.runs.eventlog import EventWriter
from clusterseg.runs.records import Steps, Stragglers
from clusterseg.train.communicator import Communicator
from clusterseg.train.failures import say

THRESHOLD = 0.75
_FEWEST = 3  # windows that a median is taken of; of fewer the next epoch decides
_SHOWN = 16


class Computing:
    """The compute seconds per step of one rank, window by window."""

    def __init__(self) -> None:
        self._seconds: list[float] = []
        self._is_first = True

    def add(self, window: Steps) -> None:
        """An attempt's first window, which holds the compilation, does not count."""
        if not self._is_first:
            self._seconds.append((window.seconds - window.comm) / window.count)
        self._is_first = False

    def take(self) -> int:
        """The median of what was added since the last one, in microseconds (at least 1); 0 if
        that is too little yet: it then stays for the next call."""
        if len(self._seconds) < _FEWEST:
            return 0
        found = max(1, round(1e6 * median(self._seconds)))
        self._seconds.clear()
        return found


def scores(medians: Sequence[int]) -> list[float]:
    """Of every rank, from all ranks' medians; none if one of them is not known (0)."""
    smallest = min(medians, default=0)
    return [smallest / own for own in medians] if smallest > 0 else []


def slow(found: Sequence[float]) -> dict[int, float]:
    """The stragglers' scores by rank."""
    return {rank: score for rank, score in enumerate(found) if score < THRESHOLD}


def describe(epoch: int, medians: Sequence[int], found: dict[int, float]) -> str:
    """The warning for the log of rank 0, a line."""
    worst = sorted(found, key=lambda rank: found[rank])
    shown = ", ".join(
        f"rank {rank} {medians[rank] / 1e6:.3g} s (score {found[rank]:.2f})"
        for rank in worst[:_SHOWN]
    )
    more = f", and {len(worst) - _SHOWN} more" if len(worst) > _SHOWN else ""
    return (
        f"stragglers in epoch {epoch}: of {len(medians)} ranks the quickest computes a step in "
        f"{min(medians) / 1e6:.3g} s, {shown}{more}; `clusterseg collect` names their hosts"
    )


class StragglerWatch:
    """Compares the ranks at each epoch's end; rank 0 warns in its log and its events."""

    def __init__(self, communicator: Communicator, events: EventWriter) -> None:
        self._communicator, self._events = communicator, events
        self._computing = Computing()

    def add(self, window: Steps) -> None:
        """A window of this rank, as it is logged."""
        if self._communicator.size > 1:  # else nobody asks for it, and it would only be kept
            self._computing.add(window)

    def compare(self, *, epoch: int, step: int) -> float | None:
        """The lowest score, the same on all ranks; None if it is not known, or there is one rank.

        To be called by all ranks together: the windows are cut alike on all of them.
        """
        if self._communicator.size == 1:
            return None
        medians = self._communicator.gather(self._computing.take())
        every = scores(medians)
        if (found := slow(every)) and self._communicator.rank == 0:
            self._tell(epoch, step, medians, found)
        return min(every, default=None)

    def _tell(self, epoch: int, step: int, medians: Sequence[int], found: dict[int, float]) -> None:
        say(describe(epoch, medians, found))
        self._events.write(
            Stragglers(
                t=time.time(),
                rank=0,
                epoch=epoch,
                step=step,
                seconds_per_step=min(medians) / 1e6,
                scores={str(rank): round(score, 3) for rank, score in found.items()},
            )
        )
