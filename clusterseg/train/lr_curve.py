"""The curve of a learning rate range test: its rates, its smoothing, its end, what it suggests.

The test of Smith (2017, arXiv:1506.01186, section 3.3): train a fresh model while the rate grows
from step to step, and look at where the loss falls. Smoothed and ended as by Gugger (2018, "How do
you find a good learning rate"). Pure: the same losses give the same curve on every rank.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

from clusterseg.runs.lr_find import Ending, Suggestion

# An average over about half a decade at the 20 steps a decade of `rates`. (Gugger's 0.98 would
# average over two decades and a half.)
_KEEP = 0.9
_DIVERGED = 4.0  # times the best smoothed loss (Gugger)
_CALM = 10  # first steps, whose tiny rates change nothing: they show how batches differ
_LEAST_FALL = 0.01  # of the loss at the start
_BEGUN = 0.1  # of the whole fall
_REACH = 3  # points to either side, over which a slope is taken
_TOO_SHORT = 2 * _CALM


def rates(lowest: float, highest: float, steps: int) -> list[float]:
    """`steps` rates from `lowest` to `highest`, each the same factor above the one before."""
    if not 0 < lowest < highest or steps < 2:
        raise ValueError(f"no range: {steps} steps from {lowest} to {highest}")
    inner = (lowest * (highest / lowest) ** (step / (steps - 1)) for step in range(1, steps - 1))
    return [lowest, *inner, highest]


class Curve:
    """Losses by learning rate, and their smoothed form; grows by `add`.

    `smooth_rates` and `smooth_losses`: the exponential moving average of the losses, without the
    bias of its start (Kingma and Ba 2015, arXiv:1412.6980, section 3), and beside it the same
    average of the rates' logarithms. Both lag alike, so that a slope stands at the rates that made
    it, where the average of the losses alone would show it half a decade later.
    """

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.losses: list[float] = []
        self.smooth_rates: list[float] = []
        self.smooth_losses: list[float] = []
        self._loss = self._log_rate = self._weight = 0.0

    def add(self, rate: float, loss: float) -> Ending | None:
        """The loss of the step that was taken with `rate`; why the test is over, None: go on.

        A loss that is not finite ends it and is no point of the curve.
        """
        if not math.isfinite(loss):
            return Ending.NOT_FINITE
        self._loss = _KEEP * self._loss + (1 - _KEEP) * loss
        self._log_rate = _KEEP * self._log_rate + (1 - _KEEP) * math.log(rate)
        self._weight = _KEEP * self._weight + (1 - _KEEP)
        self.rates.append(rate)
        self.losses.append(loss)
        self.smooth_rates.append(math.exp(self._log_rate / self._weight))
        self.smooth_losses.append(self._loss / self._weight)
        if self.smooth_losses[-1] > _DIVERGED * min(self.smooth_losses):
            return Ending.DIVERGED
        return None

    def suggestion(self) -> Suggestion | str:
        """The rates that the curve speaks for, or why it speaks for none.

        `minimum` is where the smoothed loss is lowest, `begin` where a tenth of the fall to it is
        done (Smith's two bounds of a cyclic rate). Between them, the rate of the steepest fall, but
        no more than a tenth of `minimum` (Gugger), which is at the edge of what the model bears.
        """
        points = len(self.losses)
        if points < _TOO_SHORT:
            return f"it ended after {points} steps"
        # The average forgets its start late, so its first points are left out.
        start = sum(self.losses[:_CALM]) / _CALM
        spread = math.sqrt(sum((loss - start) ** 2 for loss in self.losses[:_CALM]) / (_CALM - 1))
        lowest = min(range(_CALM, points), key=self.smooth_losses.__getitem__)
        fall = start - self.smooth_losses[lowest]
        if not fall > max(spread, _LEAST_FALL * abs(start)):
            return "the loss never fell by more than batches differ"
        # What the loss has come down to so far: after the spike of a single batch it falls steeply,
        # too, which says nothing about the rate. Nor does a low first batch, which the average
        # begins with.
        lows = list(accumulate([start] * _CALM + self.smooth_losses[_CALM:], min))
        above = start - _BEGUN * fall
        begin = max((point for point in range(lowest) if lows[point] >= above), default=0)
        minimum = self.smooth_rates[lowest]
        steepest = self.smooth_rates[
            min(range(begin, lowest + 1), key=lambda point: self._slope(lows, point))
        ]
        rate = max(min(steepest, minimum / 10), self.smooth_rates[begin])
        return Suggestion(
            learning_rate=rate,
            begin=self.smooth_rates[begin],
            steepest=steepest,
            minimum=minimum,
        )

    def _slope(self, losses: Sequence[float], point: int) -> float:
        """Of `losses` over the logarithm of the smoothed rate."""
        left, right = max(0, point - _REACH), min(len(losses) - 1, point + _REACH)
        rise = losses[right] - losses[left]
        return rise / math.log(self.smooth_rates[right] / self.smooth_rates[left])
