"""Reads the event log of one rank: folds its windows into the attempt's, keeps its own figures.

A rank's windows are held (40 bytes each) while its log is read; what stays of it is a handful of
figures, and one record an epoch from rank 0.
"""

from __future__ import annotations

import operator
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import cast

from clusterseg.collect.windows import Rows, Windows, counted_steps
from clusterseg.runs.eventlog import ByteStream, Tally, iter_batches
from clusterseg.runs.records import Checkpoint, Epoch, Event, RankStart, Steps

# More images or steps than this in one window are damage; their sums fit 64 bits.
_LARGEST = 1 << 32
_LARGEST_STEP = 1 << 63


@dataclass
class OwnWindows:
    """What one rank did by its own clock. `first` is its first window: (images, seconds).

    `later_*` are sums over its other counted windows, `median` the middle compute seconds per
    step (seconds without comm, over count) of all its windows.
    """

    first_step: int | None = None
    first: tuple[float, float] = (0.0, 0.0)
    later_images: float = 0.0
    later_seconds: float = 0.0
    median: float | None = None

    def images_per_second(self, attempts_first_step: int | None) -> float | None:
        """Over the counted windows but the attempt's first; None if there are none."""
        images, seconds = self.later_images, self.later_seconds
        if self.first_step is not None and self.first_step != attempts_first_step:
            images, seconds = images + self.first[0], seconds + self.first[1]
        return images / seconds if seconds > 0 else None


@dataclass
class RankLog:
    """One rank's log, read. `problem` says why it could not be read (to its end)."""

    rank: int
    host: str | None = None
    world_size: int | None = None
    own: OwnWindows = field(default_factory=OwnWindows)
    earliest: float | None = None
    latest: float | None = None
    epochs: dict[int, Epoch] = field(default_factory=dict)
    checkpoints: dict[int, Checkpoint] = field(default_factory=dict)
    events: int = 0
    unreadable: int = 0
    torn: bool = False
    problem: str | None = None


def read_rank(rank: int, stream: ByteStream, windows: Windows, limit: int | None) -> RankLog:
    """Reads one log to its end. Steps, epochs and checkpoints beyond `limit` don't count."""
    log = RankLog(rank)
    tally = Tally()
    reader = _Reader(log, limit)
    try:
        for batch in iter_batches(stream, tally):
            reader.take(batch)
    except OSError as error:
        log.problem = error.strerror or str(error)
    log.events, log.torn = tally.events, tally.torn
    log.unreadable += tally.unreadable
    reader.finish(windows)
    return log


class _Reader:
    """Gathers a rank's windows column by column: loops over single ones would take minutes."""

    def __init__(self, log: RankLog, limit: int | None) -> None:
        self._log = log
        self._limit = limit
        self.rows = Rows()
        self._comm = array("d")

    def take(self, batch: list[Event]) -> None:
        log = self._log
        times = [event.t for event in batch]
        log.earliest = min(times) if log.earliest is None else min(log.earliest, *times)
        log.latest = max(times) if log.latest is None else max(log.latest, *times)
        steps = cast("list[Steps]", batch)
        if set(map(type, batch)) != {Steps}:
            for event in batch:
                if type(event) is not Steps:
                    self._take_other(event)
            steps = [event for event in batch if type(event) is Steps]
            times = [event.t for event in steps]
        self._take_steps(steps, times)

    def finish(self, windows: Windows) -> None:
        """Folds what was gathered into the attempt's windows, and works out the rank's own."""
        rows, own = self.rows, self._log.own
        windows.fold(rows)
        compute = map(operator.sub, rows.seconds, self._comm)
        own.median = median(map(operator.truediv, compute, rows.count))
        if not rows.step:
            return
        images: Sequence[float] = rows.images
        seconds: Sequence[float] = rows.seconds
        if self._limit is not None and max(rows.step) > self._limit:
            parts = [
                counted_steps(step, count, self._limit) / count
                for step, count in zip(rows.step, rows.count, strict=True)
            ]
            images = list(map(operator.mul, images, parts))
            seconds = list(map(operator.mul, seconds, parts))
        own.first_step = min(rows.step)
        first = rows.step.index(own.first_step)
        own.first = images[first], seconds[first]
        own.later_images = sum(images[:first]) + sum(images[first + 1 :])
        own.later_seconds = sum(seconds[:first]) + sum(seconds[first + 1 :])

    def _take_steps(self, steps: list[Steps], times: list[float]) -> None:
        rows = self.rows
        seconds = [event.seconds for event in steps]
        try:
            step = array("q", [event.step for event in steps])
            count = array("I", [event.count for event in steps])  # refuses what is negative
            images = array("I", [event.images for event in steps])
            if not all(count) or min(seconds, default=0) < 0:
                raise OverflowError
        except OverflowError:
            usable = [event for event in steps if _is_usable(event)]
            self._log.unreadable += len(steps) - len(usable)
            self._take_steps(usable, [event.t for event in usable])
            return
        rows.step.extend(step)
        rows.count.extend(count)
        rows.images.extend(images)
        rows.seconds.extend(array("d", seconds))
        rows.t.extend(array("d", times))
        self._comm.extend(array("d", [event.comm for event in steps]))

    def _take_other(self, event: Event) -> None:
        log = self._log
        if isinstance(event, RankStart):
            log.host = event.host or log.host
            log.world_size = event.world_size or log.world_size
        elif log.rank != 0 or self._is_replayed(event):
            return
        elif isinstance(event, Epoch):
            log.epochs[event.epoch] = event
        elif isinstance(event, Checkpoint):
            keep_epochs_first(log.checkpoints, event)

    def _is_replayed(self, event: Event) -> bool:
        step = getattr(event, "step", None)
        return self._limit is not None and step is not None and step > self._limit


def keep_epochs_first(kept: dict[int, Checkpoint], event: Checkpoint) -> None:
    """Keeps an epoch's first checkpoint: the one at its end; of two at that step the later."""
    known = kept.get(event.epoch)
    if known is None or event.step <= known.step:
        kept[event.epoch] = event


def median(values: Iterable[float]) -> float | None:
    """As statistics.median, which would load a dozen modules; None if there are no values."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    if not ordered:
        return None
    if len(ordered) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2


def _is_usable(event: Steps) -> bool:
    return (
        0 < event.count < _LARGEST
        and 0 <= event.images < _LARGEST
        and -_LARGEST_STEP < event.step < _LARGEST_STEP
        and event.seconds >= 0
    )
