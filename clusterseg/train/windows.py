"""Windows of optimizer steps, as the event log has them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from statistics import fmean

from clusterseg.runs.records import Steps
from clusterseg.train.progress import finite


class Windows:
    """Adds steps up until the window is cut. All times are seconds of this rank.

    A window's seconds run from the end of the one before, so that nothing between steps is
    lost; what is not training (validation) is taken out with `leave` and `enter`.
    """

    def __init__(self, rank: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self._rank = rank
        self._clock = clock
        self._left: float | None = None
        self._begin(clock())

    @property
    def steps(self) -> int:
        """Steps in the open window."""
        return self._count

    @property
    def seconds(self) -> float:
        """Age of the open window."""
        return self._clock() - self._since

    def add(
        self,
        *,
        images: int,
        all_images: int,
        wait_data: float,
        comm: float,
        loss_sum: float,
        weight_sum: float,
        skipped: bool = False,
        gradient_norm: float = math.nan,
    ) -> None:
        """One step: its real images on this rank and on all, its sums over the global batch.

        `skipped`: it changed no weight. `gradient_norm`: NaN if it is not known.
        """
        self._count += 1
        self._images += images
        self._all_images += all_images
        self._skipped += skipped
        if math.isfinite(gradient_norm):
            self._norms.append(gradient_norm)
        self._wait_data += wait_data
        self._comm += comm
        self._loss_sum += loss_sum
        self._weight_sum += weight_sum

    def held(self, *, wait_data: float = 0.0, comm: float = 0.0) -> None:
        """Seconds in which no step came about, for want of data here or on another rank."""
        self._wait_data += wait_data
        self._comm += comm

    def cut(
        self, *, epoch: int, step: int, learning_rate: float, loss_scale: float | None = None
    ) -> Steps:
        """Closes the window at `step` and opens the next one; rate and scale are those at it."""
        now = self._clock()
        event = Steps(
            t=time.time(),
            rank=self._rank,
            epoch=epoch,
            step=step,
            count=self._count,
            images=self._images,
            seconds=now - self._since,
            wait_data=self._wait_data,
            comm=self._comm,
            loss=finite(self._loss_sum / self._weight_sum) if self._weight_sum else None,
            learning_rate=learning_rate,
            all_images=self._all_images,
            skipped_steps=self._skipped,
            loss_scale=loss_scale,
            gradient_norm=fmean(self._norms) if self._norms else None,
        )
        self._begin(now)
        return event

    def restart(self) -> None:
        """The training begins now: what was before counts in no window."""
        self._begin(self._clock())

    def leave(self) -> None:
        """Something other than training begins."""
        self._left = self._clock()

    def enter(self) -> float:
        """Training goes on; returns the seconds that it rested."""
        rested = self._clock() - (self._left if self._left is not None else self._clock())
        self._since += rested
        self._left = None
        return rested

    def _begin(self, now: float) -> None:
        self._since = now
        self._count = self._images = self._all_images = self._skipped = 0
        self._norms: list[float] = []
        self._wait_data = self._comm = self._loss_sum = self._weight_sum = 0.0
