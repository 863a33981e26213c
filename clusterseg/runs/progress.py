"""How far a run is and how fast, from the last events of its ranks: for people who watch it.

An impression of now, cheap enough to be taken every second; the measured truth over the whole
run is `clusterseg.collect`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from clusterseg.runs.attempts import Attempt
from clusterseg.runs.eventlog import EventTail, iter_events
from clusterseg.runs.files import read_capped
from clusterseg.runs.paths import SubmissionPaths
from clusterseg.runs.records import (
    Checkpoint,
    Epoch,
    Event,
    Phase,
    RankEnd,
    RankStart,
    Steps,
    Stop,
)

WINDOWS = 20  # over how many windows the speed is averaged
LARGEST_PLAN = 16 << 20
MOST_RANKS = 1 << 14  # a damaged claim may name any number
TAIL = 1 << 16  # bytes at the end of a rank's events that say what it does now


@dataclass
class RankView:
    """One rank. `seen` is the unix time of its last event, by its own clock."""

    rank: int
    start: RankStart | None = None
    status: str = "starting"
    epoch: int = 0
    step: int = 0
    loss: float | None = None
    learning_rate: float | None = None
    seen: float | None = None
    error: str | None = None
    longest_window: float = 0.0
    _windows: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=WINDOWS))
    _first: bool = True

    @property
    def host(self) -> str:
        return self.start.host if self.start else ""

    @property
    def images_per_second(self) -> float | None:
        """Over the last windows, without the first one of an attempt (it compiles)."""
        seconds = sum(window[1] for window in self._windows)
        return sum(window[0] for window in self._windows) / seconds if seconds > 0 else None

    def feed(self, event: Event) -> None:
        self.seen = event.t
        if isinstance(event, Steps):
            self.status = "training"
            self.epoch, self.step = event.epoch, event.step
            self.loss = event.loss if event.loss is not None else self.loss
            self.learning_rate = event.learning_rate or self.learning_rate
            if not self._first:
                self._windows.append((event.images, event.seconds))
                self.longest_window = max(self.longest_window, event.seconds)
            self._first = False
        elif isinstance(event, RankStart):
            self.start, self.epoch, self.step = event, event.epoch, event.step
            self.status = "started"
            self._windows.clear()
            self._first = True
        elif isinstance(event, Stop):
            self.status = "stopping"
        elif isinstance(event, RankEnd):
            self.status, self.error = event.status, event.error
        elif isinstance(event, Phase):
            self.status = f"after {event.name}"


@dataclass
class Progress:
    """The ranks of one attempt and what rank 0 said last about the whole."""

    ranks: dict[int, RankView] = field(default_factory=dict)
    epochs: list[Epoch] = field(default_factory=list)
    checkpoint: Checkpoint | None = None

    def feed(self, rank: int, events: Iterable[Event]) -> None:
        """Takes events of a rank in the order they were written."""
        view = self.ranks.setdefault(rank, RankView(rank))
        for event in events:
            view.feed(event)
            if isinstance(event, Epoch):
                self.epochs.append(event)
            elif isinstance(event, Checkpoint):
                self.checkpoint = event

    @property
    def step(self) -> int:
        """The last step that some rank has finished; ranks go in step, so one speaks for all."""
        return max((view.step for view in self.ranks.values()), default=0)

    @property
    def epoch(self) -> int:
        """Completed epochs."""
        return max((view.epoch for view in self.ranks.values()), default=0)

    @property
    def loss(self) -> float | None:
        losses = [view.loss for view in self.ranks.values() if view.loss is not None]
        return sum(losses) / len(losses) if losses else None

    @property
    def learning_rate(self) -> float | None:
        rates = (view.learning_rate for view in self.ranks.values())
        return next((rate for rate in rates if rate is not None), None)

    @property
    def images_per_second(self) -> float | None:
        """Of all ranks together."""
        speeds = [view.images_per_second for view in self.ranks.values()]
        known = [speed for speed in speeds if speed is not None]
        return sum(known) if known else None

    @property
    def validated(self) -> Epoch | None:
        """The last epoch with a validation."""
        scored = (epoch for epoch in reversed(self.epochs) if epoch.val_accuracy is not None)
        return next(scored, None)


class _TrainGoal(msgspec.Struct):
    epochs: int = 1
    steps_per_epoch: int | None = None


class _SpecGoal(msgspec.Struct):
    train: _TrainGoal | None = None


class _LrRange(msgspec.Struct):
    optimizers: tuple[str, ...] = ()
    steps: int = 0


class Goal(msgspec.Struct):
    """What of a plan.json says how far the run is to go; its other keys are not looked at."""

    ranks: int = 0
    spec: _SpecGoal = msgspec.field(default_factory=_SpecGoal)
    warnings: list[str] = []
    lr_find: _LrRange | None = None

    @property
    def epochs(self) -> int | None:
        """None for a `command`, and for a range test."""
        return self.spec.train.epochs if self.spec.train and self.lr_find is None else None

    def steps(self, epochs: Iterable[Epoch]) -> int | None:
        """Steps of the whole run, as far as it can be told after these epochs.

        Of a range test it is the most that there can be: a sweep may end early.
        """
        if self.lr_find is not None:
            return len(self.lr_find.optimizers) * self.lr_find.steps
        if self.spec.train is None:
            return None
        if self.spec.train.steps_per_epoch:
            return self.spec.train.epochs * self.spec.train.steps_per_epoch
        last = max(epochs, key=lambda epoch: epoch.epoch, default=None)
        if last is None or not last.epoch:
            return None
        return last.step + (self.spec.train.epochs - last.epoch) * last.step // last.epoch


def read_goal(submission: SubmissionPaths | None) -> Goal:
    """The goal of a submission; an empty one if its plan can't be read."""
    if submission is None:
        return Goal()
    try:
        return msgspec.json.decode(read_capped(submission.plan, LARGEST_PLAN), type=Goal)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Goal()


def look_at(attempt: Attempt) -> Progress:
    """The progress of an attempt from the ends of its ranks' logs.

    Of a packed attempt, rank 0 alone is read: it is over, and unpacking takes time.
    """
    progress = Progress()
    if attempt.packed:
        for rank, stream in attempt.events():
            progress.feed(rank, iter_events(stream))
            break
        return progress
    ranks = attempt.claim.ranks if attempt.claim else len(attempt.log_ranks())
    for rank in range(min(ranks, MOST_RANKS)):
        path = attempt.paths.events(rank)
        try:
            # Rank 0 speaks of epochs, which may lie far back: it is read whole.
            progress.feed(rank, EventTail(path, keep=None if rank == 0 else TAIL).read())
        except OSError as error:
            progress.ranks[rank] = RankView(rank, status="unreadable", error=error.strerror)
    return progress
