"""The ranks as seen through their event files: progress, life, saves, the ends they report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from clusterseg.runs.eventlog import EventTail
from clusterseg.runs.paths import AttemptPaths
from clusterseg.runs.records import (
    Checkpoint,
    Epoch,
    Event,
    Phase,
    RankEnd,
    RankStart,
    Steps,
)
from clusterseg.supervise.failure import RankFacts

# Files looked at in one round: a thousand opens a second would be a load for a file server.
FILES_A_ROUND = 64


@dataclass
class RankWatch:
    """One rank. `grew` is when its file was last seen to have grown, or to have been touched by a
    rank that a full disk keeps from writing; by the watcher's clock."""

    rank: int
    tail: EventTail
    grew: float
    start: RankStart | None = None
    end: RankEnd | None = None
    last_t: float | None = None
    step: int | None = None
    epoch: int = 0
    at_epoch_end: bool = False
    starting: bool = False  # a startup phase is over, and the step after it holds a compilation
    first_window: float | None = None  # seconds; the first step, compilation included
    window: float | None = None  # the longest one after it

    def facts(self) -> RankFacts:
        return RankFacts(self.rank, self.start, self.end, self.last_t, self.step)


@dataclass
class Watch:
    """All ranks of one attempt. Seconds throughout; `now` is a monotonic clock's."""

    paths: AttemptPaths
    count: int
    begun: float
    ranks: list[RankWatch] = field(init=False)
    first_step: int | None = None
    last_step: int | None = None
    longest_save: float | None = None
    longest_validation: float | None = None
    failed: RankWatch | None = None  # the first rank that was seen to say that it failed
    _next: int = 1

    def __post_init__(self) -> None:
        self.ranks = [
            RankWatch(rank, EventTail(self.paths.events(rank)), grew=self.begun)
            for rank in range(self.count)
        ]

    def look(self, now: float) -> None:
        """Reads what rank 0 and the next ranks in turn have written.

        A rank whose file can't be read just now counts as alive: what nobody sees is no silence.
        The others, which fall silent with one that hangs, tell.
        """
        others = self.count - 1
        turn = min(others, FILES_A_ROUND - 1)
        chosen = [1 + (self._next - 1 + offset) % others for offset in range(turn)]
        self._next = 1 + (self._next - 1 + turn) % others if others else 1
        self._read((self.ranks[rank] for rank in (0, *chosen)), now)

    def look_at_all(self, now: float) -> None:
        """Reads what all ranks have written since the last look."""
        self._read(self.ranks, now)

    @property
    def window(self) -> float:
        """The longest window of any rank; the first ones only as long as there are no others."""
        later = [rank.window for rank in self.ranks if rank.window is not None]
        first = [rank.first_window for rank in self.ranks if rank.first_window is not None]
        return max(later or first, default=0.0)

    def starts(self) -> list[RankStart]:
        """What the ranks that have started said, by rank."""
        return [rank.start for rank in self.ranks if rank.start is not None]

    def facts(self) -> list[RankFacts]:
        return [rank.facts() for rank in self.ranks]

    def _read(self, ranks: Iterable[RankWatch], now: float) -> None:
        for rank in ranks:
            touched = rank.tail.touched
            try:
                events = rank.tail.read()
            except OSError:
                rank.grew = now
                continue
            if rank.tail.touched != touched:
                rank.grew = now
            for event in events:
                rank.grew = now
                rank.last_t = event.t
                self._note(rank, event)

    def _note(self, rank: RankWatch, event: Event) -> None:
        if isinstance(event, Steps):
            self._note_steps(rank, event)
        elif isinstance(event, RankStart):
            rank.start, rank.epoch = event, event.epoch
        elif isinstance(event, RankEnd):
            rank.end = event
            if event.status == "failed" and self.failed is None:
                self.failed = rank
            if event.step > (self.last_step or 0):  # the last window may not have been written
                self.last_step = event.step
        elif isinstance(event, Checkpoint):
            seconds = event.blocked_seconds + event.write_seconds
            self.longest_save = max(self.longest_save or 0.0, seconds)
        elif isinstance(event, Phase) and event.name == "validate":
            self.longest_validation = max(self.longest_validation or 0.0, event.seconds)
        elif isinstance(event, Phase) and event.name == "startup":
            rank.starting = True  # of an lr-find each sweep has one
        if isinstance(event, Epoch | Phase):
            rank.at_epoch_end = False

    def _note_steps(self, rank: RankWatch, event: Steps) -> None:
        # A window that completes an epoch is followed by validation.
        rank.at_epoch_end = event.epoch > rank.epoch
        rank.epoch, rank.step = event.epoch, event.step
        if rank.first_window is None:
            rank.first_window = event.seconds
        elif not rank.starting:
            rank.window = max(rank.window or 0.0, event.seconds)
        rank.starting = False
        first = event.step - event.count + 1
        self.first_step = first if self.first_step is None else min(self.first_step, first)
        self.last_step = event.step if self.last_step is None else max(self.last_step, event.step)
