"""When ranks ask each other beside the steps: in a wait for data, and in a validation."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import inf

from clusterseg.train.stopping import StopSources

_PATIENCE = 1.0  # seconds that data may still come in after a stop was asked for
_BEAT = 5.0  # seconds without data after which the others are asked whether they know of a stop
_LONGEST_BEAT = 60.0
_SHARE = 10  # a beat costs a step on each rank: no more than one part in so many of the wait

CADENCE = 0.5  # seconds of a validation between two agreements
_MOST = 64  # batches


def leaves(waited: float, *, asked: bool, alone: bool, step: float) -> bool:
    """Whether a rank without data takes part in the agreement that the others wait in.

    `waited`: seconds so far, `asked`: a stop reached this rank, `step`: seconds that a step costs.
    A stop may be known to others only, and they can't say so: they wait for this rank.
    """
    if waited >= _PATIENCE and asked:
        return True
    return not alone and waited >= min(max(_BEAT, _SHARE * step), _LONGEST_BEAT)


class DataWait:
    """One rank's waiting for data; an instance is what `Feeder.current` asks."""

    def __init__(self, stops: StopSources, *, alone: bool) -> None:
        self._stops, self._alone = stops, alone
        self._step = inf

    def __call__(self, waited: float) -> bool:
        step = 0.0 if self._step == inf else self._step
        return leaves(waited, asked=self._stops.asked(), alone=self._alone, step=step)

    def stepped(self, seconds: float) -> None:
        """A step took so long on this rank, without waiting for others. The first one holds the
        making of the graph, so the quickest counts."""
        self._step = min(self._step, seconds)


class Cadence:
    """At which batches of a validation the ranks agree: at the first, then about every CADENCE.

    Each rank proposes after how many batches, by its own pace; the smallest number is for all, so
    they come to the same batches. `place` is that of the next agreement, from 0.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.place = 0
        self._stride = 0
        self._since = clock()

    def proposal(self) -> int:
        """Batches until the next agreement, as far as this rank is concerned; at least 1."""
        if self._stride == 0:
            return 1  # the first batch may hold the making of the graph
        pace = (self._clock() - self._since) / self._stride
        return stride(pace)

    def agreed(self, batches: int) -> None:
        """All ranks go on with so many."""
        self._stride = batches
        self.place += batches
        self._since = self._clock()


def stride(pace: float) -> int:
    """Batches of `pace` seconds that make up CADENCE: 1 to 64."""
    return _MOST if pace * _MOST <= CADENCE else max(1, int(CADENCE / pace))
