"""The windows of one attempt, what all its ranks wrote of each folded into one row.

The size follows the number of windows of one attempt, never the number of ranks or attempts:
40 bytes a window.
"""

from __future__ import annotations

import operator
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Rows:
    """The windows of one rank, column by column, in the order they were written."""

    step: array[int] = field(default_factory=lambda: array("q"))
    count: array[int] = field(default_factory=lambda: array("I"))
    images: array[int] = field(default_factory=lambda: array("I"))
    seconds: array[float] = field(default_factory=lambda: array("d"))
    t: array[float] = field(default_factory=lambda: array("d"))


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
    count: array[int] = field(default_factory=lambda: array("I"))
    images: array[int] = field(default_factory=lambda: array("q"))
    seconds: array[float] = field(default_factory=lambda: array("d"))
    t: array[float] = field(default_factory=lambda: array("d"))

    def fold(self, rows: Rows) -> None:
        """Folds what one rank wrote in.

        All ranks cut the same windows, up to where they were killed, so that whole columns are
        folded at once; only what is left is looked at one by one.
        """
        same = min(len(self.step), len(rows.step))
        if not (
            _equal(self.step[:same], rows.step[:same])
            and _equal(self.count[:same], rows.count[:same])
        ):
            same = 0
        pairs = zip(self.seconds[:same], rows.seconds[:same], strict=True)
        slowest = [ours if ours > own else own for ours, own in pairs]  # twice as quick as max()
        images = map(operator.add, self.images[:same], rows.images)
        self.seconds[:same] = array("d", slowest)
        self.images[:same] = array("q", images)
        if same == len(self.step) and _rising(rows.step):
            self.step.extend(rows.step[same:])
            self.count.extend(rows.count[same:])
            self.images.extend(array("q", rows.images[same:]))
            self.seconds.extend(rows.seconds[same:])
            self.t.extend(rows.t[same:])
            return
        for at in range(same, len(rows.step)):
            self._fold_one(rows, at)

    def merge(self, other: Windows) -> None:
        """Folds in what other ranks of the same attempt wrote."""
        self.fold(Rows(other.step, other.count, other.images, other.seconds, other.t))

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

    def _fold_one(self, rows: Rows, row: int) -> None:
        step = rows.step[row]
        at = bisect_left(self.step, step)
        if at < len(self.step) and self.step[at] == step:
            self.count[at] = max(self.count[at], rows.count[row])
            self.images[at] += rows.images[row]
            self.seconds[at] = max(self.seconds[at], rows.seconds[row])
        else:
            self.step.insert(at, step)
            self.count.insert(at, rows.count[row])
            self.images.insert(at, rows.images[row])
            self.seconds.insert(at, rows.seconds[row])
            self.t.insert(at, rows.t[row])


def counted_steps(step: int, count: int, limit: int | None) -> int:
    """How many of the `count` steps that end with `step` are not beyond `limit`."""
    if limit is None or step <= limit:
        return count
    return max(0, count - (step - limit))


def _first_step(step: int, count: int) -> int:
    return step - count + 1


def _equal(one: array[int], other: array[int]) -> bool:
    """As `==`, which would make objects of all the numbers first."""
    return one.tobytes() == other.tobytes()


def _rising(steps: array[int]) -> bool:
    return all(map(operator.lt, steps, steps[1:]))
