"""The windows of one attempt, what all its ranks wrote of each folded into one row.

The size follows the number of windows of one attempt, never the number of ranks or attempts:
40 bytes a window.
"""

from __future__ import annotations

import operator
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Rows:
    """Some windows of one rank, column by column: in the order they were written."""

    step: array[int]
    count: array[int]
    images: array[int]
    seconds: array[float]
    t: array[float]


@dataclass(frozen=True)
class Share:
    """A window with what counts of it: `counted` of its `count` steps, `images`, `seconds`.

    `t` is when the first rank that was read had finished it.
    """

    step: int
    count: int
    counted: int
    images: float
    seconds: float
    t: float


@dataclass(frozen=True)
class Totals:
    """One attempt's windows added up; `later_*`: over the counted ones but the attempt's first.

    `first_window` is the last step of that first one.
    """

    completed: int = 0
    replayed: int = 0
    seconds: float = 0.0
    later_images: float = 0.0
    later_seconds: float = 0.0
    first_window: int | None = None
    first_step: int | None = None
    last_step: int | None = None


@dataclass
class Windows:
    """Rows by last step, ascending: steps, images of all ranks, seconds of the slowest rank."""

    step: array[int] = field(default_factory=lambda: array("q"))
    count: array[int] = field(default_factory=lambda: array("q"))
    images: array[int] = field(default_factory=lambda: array("q"))
    seconds: array[float] = field(default_factory=lambda: array("d"))
    t: array[float] = field(default_factory=lambda: array("d"))

    def fold(self, rows: Rows, at: int) -> int:
        """Folds one rank's `rows` in; returns where its next rows are expected.

        `at` is what the last call for this rank returned, 0 at first. All ranks cut the same
        windows, so the rows are nearly always just there and whole columns are folded at once.
        """
        end = at + len(rows.step)
        if self.step[at:end] == rows.step and self.count[at:end] == rows.count:
            slowest = map(max, self.seconds[at:end], rows.seconds)
            self.seconds[at:end] = array("d", slowest)
            self.images[at:end] = array("q", map(operator.add, self.images[at:end], rows.images))
            return end
        if at == len(self.step) and _rising(rows.step) and not self._reaches(rows.step[0]):
            self.step.extend(rows.step)
            self.count.extend(rows.count)
            self.images.extend(rows.images)
            self.seconds.extend(rows.seconds)
            self.t.extend(rows.t)
            return end
        for row in zip(rows.step, rows.count, rows.images, rows.seconds, rows.t, strict=True):
            at = self._fold_one(*row)
        return at

    def merge(self, other: Windows) -> None:
        """Folds in what other ranks of the same attempt wrote."""
        self.fold(Rows(other.step, other.count, other.images, other.seconds, other.t), 0)

    def shares(self, limit: int | None) -> Iterator[Share]:
        """The windows in order; steps beyond `limit` (None: there is none) don't count.

        A window across the limit is shared out by steps.
        """
        columns = zip(self.step, self.count, self.images, self.seconds, self.t, strict=True)
        for step, count, images, seconds, t in columns:
            counted = counted_steps(step, count, limit)
            part = counted / count
            yield Share(step, count, counted, images * part, seconds * part, t)

    def totals(self, limit: int | None) -> Totals:
        """Adds up; see `shares` for `limit`."""
        if not self.step:
            return Totals()
        shares = self.shares(limit)
        first = next(shares)
        completed = first.counted
        images = seconds = 0.0
        for share in shares:
            completed += share.counted
            images += share.images
            seconds += share.seconds
        return Totals(
            completed=completed,
            replayed=sum(self.count) - completed,
            seconds=first.seconds + seconds,
            later_images=images,
            later_seconds=seconds,
            first_window=self.step[0],
            first_step=min(map(_first_step, self.step, self.count)),
            last_step=self.step[-1],
        )

    def _reaches(self, step: int) -> bool:
        return bool(self.step) and self.step[-1] >= step

    def _fold_one(self, step: int, count: int, images: int, seconds: float, t: float) -> int:
        at = bisect_left(self.step, step)
        if at < len(self.step) and self.step[at] == step:
            self.count[at] = max(self.count[at], count)
            self.images[at] += images
            self.seconds[at] = max(self.seconds[at], seconds)
        else:
            self.step.insert(at, step)
            self.count.insert(at, count)
            self.images.insert(at, images)
            self.seconds.insert(at, seconds)
            self.t.insert(at, t)
        return at + 1


def counted_steps(step: int, count: int, limit: int | None) -> int:
    """How many of the `count` steps that end with `step` are not beyond `limit`."""
    if limit is None or step <= limit:
        return count
    return max(0, count - (step - limit))


def _first_step(step: int, count: int) -> int:
    return step - count + 1


def _rising(steps: Iterable[int]) -> bool:
    before = None
    for step in steps:
        if before is not None and step <= before:
            return False
        before = step
    return True
