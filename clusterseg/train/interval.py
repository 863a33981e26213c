"""When a save is due, and how often it pays: pure but for the clock that is passed in.

With C the cost of a save and M the mean time between failures, both in seconds:
J. W. Young, "A first order approximation to the optimum checkpoint interval", CACM 17(9), 1974,
530-531; J. T. Daly, "A higher order estimate of the optimum checkpoint interval for restart
dumps", Future Generation Computer Systems 22(3), 2006, 303-312.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median

from clusterseg.spec.model import Every

# Taken for the time between failures until there were some: one a day.
PRIOR = 86_400.0
_SHORTEST, _LONGEST = 10.0, 3600.0  # seconds between two saves of `auto`
_FEWEST = 20.0  # times the cost: what saves hold up stays below 5 %
_FIRST_STEPS, _FIRST_SECONDS, _FIRST_FEWEST = 20, 60.0, 3


@dataclass(frozen=True)
class Life:
    """An attempt before: how long it lived, and whether it ended with steps lost."""

    seconds: float
    failed: bool


def young(cost: float, mtbf: float) -> float:
    """The square root of 2 C M."""
    return math.sqrt(2 * cost * mtbf)


def daly(cost: float, mtbf: float) -> float:
    """Daly's equation 37: Young's with two further terms of the series; M from C = 2 M on."""
    if cost >= 2 * mtbf:
        return mtbf
    ratio = cost / (2 * mtbf)
    return young(cost, mtbf) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - cost


def mean_time_between_failures(lives: Iterable[Life], prior: float = PRIOR) -> float:
    """Of this run's attempts, with a first failure expected after `prior` seconds."""
    lives = list(lives)
    return (prior + sum(one.seconds for one in lives)) / (1 + sum(one.failed for one in lives))


def best_interval(cost: float, mtbf: float) -> float:
    """Seconds between two saves: Daly's, within 10 s or 20 times the cost, and an hour."""
    return min(max(daly(cost, mtbf), _SHORTEST, _FEWEST * cost), _LONGEST)


class Interval:
    """Says on rank 0 when a save is due by time. What is by steps, all ranks count themselves.

    `cost` is that of a save in the attempt before, None if nothing is known: then `auto` saves
    early once, to measure it.
    """

    def __init__(
        self,
        every: Every,
        *,
        mtbf: float = PRIOR,
        cost: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._every = every
        self._mtbf = mtbf
        self.cost = cost
        self._clock = clock
        self._since = clock()
        self._steps = 0
        self._told: float | None = None

    @property
    def seconds(self) -> float | None:
        """The time between two saves; None if they go by steps, or nothing is measured yet."""
        if self._every.auto:
            return None if self.cost is None else best_interval(self.cost, self._mtbf)
        return self._every.seconds

    def news(self) -> str | None:
        """What `auto` chose and why, where that has changed by a quarter; for the log."""
        if not self._every.auto or self.seconds is None:
            return None
        if self._told is not None and 0.8 < self.seconds / self._told < 1.25:
            return None
        self._told = self.seconds
        return (
            f"checkpoint.every: auto saves every {self.seconds:.0f} s: a save costs "
            f"{self.cost:.2f} s, a failure is expected every {self._mtbf / 3600:.1f} h"
        )

    def stepped(self) -> None:
        """A step begins."""
        self._steps += 1

    def due(self) -> bool:
        age = self._clock() - self._since
        if self._every.auto and self.cost is None:
            long = age >= _FIRST_SECONDS and self._steps >= _FIRST_FEWEST
            return long or self._steps >= _FIRST_STEPS
        return self.seconds is not None and age >= self.seconds

    def begun(self) -> None:
        """A save was begun, due or not."""
        self._since = self._clock()
        self._steps = 0

    def saved(self, cost: float) -> None:
        """What a save cost in seconds of steps; the mean with what was known before it."""
        self.cost = cost if self.cost is None else (self.cost + cost) / 2


class Slowdown:
    """How much longer steps take while a checkpoint is written beside them."""

    def __init__(self) -> None:
        self._usual: deque[float] = deque(maxlen=32)
        self._beside: list[float] = []

    def step(self, seconds: float, *, saving: bool) -> None:
        """One step took `seconds`."""
        (self._beside if saving else self._usual).append(seconds)

    def take(self) -> float:
        """Seconds that the steps beside the last write took longer than usual, at least 0."""
        beside, self._beside = self._beside, []
        if not self._usual:  # nothing to compare with
            return 0.0
        return max(0.0, sum(beside) - len(beside) * median(self._usual))
