"""Reads the event log of one rank: folds its windows into the attempt's, keeps its own figures.

What is kept of a rank does not grow with its log, but for one float a window while it is read
(for the exact median) and one record an epoch from rank 0.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

from clusterseg.collect.windows import Rows, Windows, counted_steps
from clusterseg.runs.eventlog import ByteStream, Tally, iter_batches
from clusterseg.runs.records import Checkpoint, Epoch, Event, RankStart, Steps

# Beyond any real count, and small enough for sums in 64 bits. A log that says more is damaged.
_LARGEST = 1 << 40


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
    reader = _Reader(log, windows, limit)
    try:
        for batch in iter_batches(stream, tally):
            reader.take(batch)
    except OSError as error:
        log.problem = error.strerror or str(error)
    log.events, log.torn = tally.events, tally.torn
    log.unreadable += tally.unreadable
    log.own.median = reader.median()
    return log


class _Reader:
    def __init__(self, log: RankLog, windows: Windows, limit: int | None) -> None:
        self._log = log
        self._windows = windows
        self._limit = limit
        self._at = 0  # where in `windows` this rank's next row is expected
        self._compute: array[float] = array("d")

    def take(self, batch: list[Event]) -> None:
        log = self._log
        times = [event.t for event in batch]
        log.earliest = min(times) if log.earliest is None else min(log.earliest, *times)
        log.latest = max(times) if log.latest is None else max(log.latest, *times)
        steps = [event for event in batch if type(event) is Steps]
        if len(steps) < len(batch):
            for event in batch:
                if type(event) is not Steps:
                    self._take_other(event)
        if steps:
            self._take_steps(steps)

    def median(self) -> float | None:
        """As statistics.median, which would load a dozen modules."""
        values = sorted(self._compute)
        middle = len(values) // 2
        if not values:
            return None
        if len(values) % 2:
            return values[middle]
        return (values[middle - 1] + values[middle]) / 2

    def _take_steps(self, steps: list[Steps]) -> None:
        count = [event.count for event in steps]
        images = [event.images for event in steps]
        seconds = [event.seconds for event in steps]
        step = [event.step for event in steps]
        if not (
            min(count) > 0
            and min(seconds) >= 0
            and min(images) >= 0
            and all(max(column) < _LARGEST for column in (step, count, images))
        ):
            usable = [event for event in steps if _is_usable(event)]
            self._log.unreadable += len(steps) - len(usable)
            if usable:
                self._take_steps(usable)
            return
        rows = Rows(
            step=array("q", step),
            count=array("q", count),
            images=array("q", images),
            seconds=array("d", seconds),
            t=array("d", [event.t for event in steps]),
        )
        self._at = self._windows.fold(rows, self._at)
        self._compute.extend([(event.seconds - event.comm) / event.count for event in steps])
        self._add_own(rows)

    def _add_own(self, rows: Rows) -> None:
        own = self._log.own
        if self._limit is None or max(rows.step) <= self._limit:
            images: list[float] = list(rows.images)
            seconds = list(rows.seconds)
        else:
            counted = [
                counted_steps(step, count, self._limit) / count
                for step, count in zip(rows.step, rows.count, strict=True)
            ]
            images = [a * part for a, part in zip(rows.images, counted, strict=True)]
            seconds = [s * part for s, part in zip(rows.seconds, counted, strict=True)]
        lowest = min(rows.step)
        if own.first_step is None or lowest < own.first_step:
            index = rows.step.index(lowest)
            own.later_images += own.first[0]
            own.later_seconds += own.first[1]
            own.first_step, own.first = lowest, (images.pop(index), seconds.pop(index))
        own.later_images += sum(images)
        own.later_seconds += sum(seconds)

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


def _is_usable(event: Steps) -> bool:
    return (
        0 < event.count < _LARGEST
        and event.step < _LARGEST
        and 0 <= event.images < _LARGEST
        and event.seconds >= 0
    )
