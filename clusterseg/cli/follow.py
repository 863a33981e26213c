"""The live view of a run: a bar on a terminal, plain lines into a pipe.

Files are read, each from where it was left, no more than twice a second and less often the
longer a reading takes; Slurm is asked now and then whether the job still lives. It goes on over
restarts until the run is over.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Protocol, TextIO

from clusterseg.cli.ending import NEWLINE, Patience
from clusterseg.cli.log_follow import LogFollower
from clusterseg.cli.log_view import LogChoice, LogPrinter
from clusterseg.cli.output import number, safe
from clusterseg.cluster.look import NOW_AND_THEN, Eyes
from clusterseg.runs.attempts import Attempt, attempt_numbers, read_attempt
from clusterseg.runs.eventlog import EventTail, iter_events
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.placement import read_check
from clusterseg.runs.progress import MOST_RANKS, TAIL, Goal, Progress, RankView, read_goal
from clusterseg.runs.records import (
    Checkpoint,
    End,
    Epoch,
    Event,
    NotFinite,
    RankEnd,
    RankStart,
    Stop,
)
from clusterseg.runs.snapshot import Snapshot

LOOK = 0.5  # seconds between two looks, at least
SHARE = 4  # a look may take this part of the time at most
STALE = 60.0  # seconds of silence after which a rank is shown as silent, at least
LONGEST = 300  # characters of an error in one line; `status` shows it whole
SPEED_OVER = 60.0  # seconds over which the remaining time is estimated


class View(Protocol):
    """Where the state of a run is shown."""

    def __enter__(self) -> View: ...

    def __exit__(self, *_: object) -> None: ...

    def show(self, watch: Watch, news: list[str]) -> None:
        """`news` are lines that stay; the rest is the state of now."""


def follow_run(run: RunPaths, stream: TextIO) -> Snapshot:
    """Shows a run on `stream` until nothing more will happen by itself; the last look at it."""
    watch = Watch(run)
    said: list[str] = []
    eyes = Eyes(max_age=NOW_AND_THEN)
    patience = Patience(eyes, said.append)
    with _view(stream) as view:
        while True:
            began = time.monotonic()
            snapshot = eyes.look(run)  # before the reading: what is over is read to its end
            view.show(watch, [*said, *watch.read(snapshot)])
            said.clear()
            if patience.is_over(snapshot):
                watch.finish()
                return snapshot
            time.sleep(max(LOOK, SHARE * (time.monotonic() - began)))


class Watch:
    """What is known of a run so far; `read` adds what is new."""

    def __init__(self, run: RunPaths) -> None:
        self.run = run
        self.goal = Goal()
        self.progress = Progress()
        self.epochs: list[Epoch] = []
        self.snapshot: Snapshot | None = None
        self.attempt: int | None = None
        self.started: float | None = None
        self._tails: dict[int, EventTail] = {}
        self._taken = 0  # events of rank 0
        self._heard: dict[int, float] = {}  # rank -> when, by our own clock
        self._ended: set[int] = set()
        self._placed = False  # whether the placement of this attempt was told of
        self._logs: LogFollower | None = None
        self._pace: deque[tuple[float, int]] = deque(maxlen=200)

    def read(self, snapshot: Snapshot) -> list[str]:
        """Takes everything new; returns it as lines for people."""
        self.snapshot = snapshot
        self.goal = read_goal(snapshot.submission)
        news: list[str] = []
        for count in attempt_numbers(self.run):
            if count in self._ended or (self.attempt is not None and count < self.attempt):
                continue
            attempt = read_attempt(self.run.attempt(count))
            if attempt is not None:
                news += self._read_attempt(attempt)
        self._read_logs(snapshot)
        self._pace.append((time.monotonic(), self.progress.step))
        return news

    def finish(self) -> None:
        """Prints what a log still holds without the end of its line."""
        if self._logs is not None:
            self._logs.finish()

    @property
    def steps(self) -> int | None:
        """Steps of the whole run, as soon as they are known."""
        return self.goal.steps(self.epochs)

    @property
    def seconds_left(self) -> float | None:
        """By the pace of the last minute."""
        now = time.monotonic()
        recent = [(when, step) for when, step in self._pace if now - when <= SPEED_OVER]
        if not recent or self.steps is None or recent[-1][1] <= recent[0][1]:
            return None
        pace = (recent[-1][1] - recent[0][1]) / (recent[-1][0] - recent[0][0])
        return max(0, self.steps - self.progress.step) / pace

    def silence(self, view: RankView) -> float:
        """Seconds since a rank was heard of, by this process's own clock."""
        return time.monotonic() - self._heard.get(view.rank, time.monotonic())

    def is_stale(self, view: RankView) -> bool:
        """Whether a rank that should be training has been silent for suspiciously long."""
        if view.status in ("done", "stopped", "failed"):
            return False
        return self.silence(view) > max(STALE, 5 * view.longest_window)

    def _read_attempt(self, attempt: Attempt) -> list[str]:
        news = [] if attempt.number == self.attempt else self._begin(attempt)
        for rank, events in self._new_events(attempt):
            if events:
                self._heard[rank] = time.monotonic()
            self.progress.feed(rank, events)
            for event in events:
                if isinstance(event, Epoch):
                    self.epochs.append(event)
                news += _told(event)
        if not self._placed and (check := read_check(attempt)) is not None:
            self._placed = True
            news += [f"attempt {attempt.number}: placement: {text}" for text in check.problems]
        if attempt.end is not None:
            self._ended.add(attempt.number)
            news.append(_told_end(attempt.number, attempt.end))
        return news

    def _begin(self, attempt: Attempt) -> list[str]:
        self.attempt = attempt.number
        self.progress = Progress()
        self._tails, self._taken, self._heard = {}, 0, {}
        self._placed = False
        self._pace.clear()
        claim = attempt.claim
        if claim is None:
            return [f"attempt {attempt.number}: {problem}" for problem in attempt.problems]
        self.started = claim.t
        for rank in range(min(claim.ranks, MOST_RANKS)):
            self.progress.ranks[rank] = RankView(rank)
            self._heard[rank] = time.monotonic()
        hosts = ", ".join(f"{host} x{ranks}" for host, ranks in list(claim.hosts.items())[:4])
        more = f" and {len(claim.hosts) - 4} more hosts" if len(claim.hosts) > 4 else ""
        since = f", from step {claim.resume_step}" if claim.resume_step else ""
        ranks = "1 rank" if claim.ranks == 1 else f"{claim.ranks} ranks"
        return [f"attempt {attempt.number}: {ranks} on {hosts}{more}{since}"]

    def _new_events(self, attempt: Attempt) -> Iterator[tuple[int, list[Event]]]:
        """What the ranks wrote since the last call, rank by rank: thousands fit into memory.

        Only rank 0 tells of epochs; of the others, and of those in an archive, the past is left.
        """
        try:
            if attempt.packed:
                stream = next(attempt.events(), (0, None))[1]
                events = list(islice(iter_events(stream), self._taken, None)) if stream else []
                yield 0, events
                return
            for rank in self.progress.ranks:
                if rank not in self._tails:
                    keep = None if rank == 0 else TAIL
                    self._tails[rank] = EventTail(attempt.paths.events(rank), keep=keep)
                events = self._tails[rank].read()
                self._taken += len(events) if rank == 0 else 0
                yield rank, events
        except OSError:
            return  # the ranks stay silent in the picture; `status` says why

    def _read_logs(self, snapshot: Snapshot) -> None:
        """A `command` tells of itself in its output: that is shown instead of steps."""
        if snapshot.submission is None or self.goal.spec.train is not None:
            return
        if self._logs is None:
            printer = LogPrinter(as_json=False, lines=None, named=True)
            self._logs = LogFollower(self.run, LogChoice(), printer, tells_placement=False)
        self._logs.read()


class PlainView:
    """Lines for a pipe or a file; the step now and then."""

    EVERY = 5.0  # seconds between two lines about steps

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._said = (-self.EVERY, 0)

    def __enter__(self) -> PlainView:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def show(self, watch: Watch, news: list[str]) -> None:
        for line in news:
            self._stream.write(safe(line) + "\n")
        when, step = self._said
        if watch.progress.step != step and time.monotonic() - when >= self.EVERY:
            self._said = (time.monotonic(), watch.progress.step)
            self._stream.write(step_line(watch) + "\n")
        self._stream.flush()


def step_line(watch: Watch) -> str:
    """`step 40/400  epoch 1/4  loss 0.53  lr 0.045  31.2 images/s`."""
    progress, goal = watch.progress, watch.goal
    parts = [
        f"step {progress.step}" + (f"/{watch.steps}" if watch.steps else ""),
        f"epoch {progress.epoch}" + (f"/{goal.epochs}" if goal.epochs else ""),
        f"loss {number(progress.loss)}",
        f"learning rate {number(progress.learning_rate)}",
        f"{number(progress.images_per_second)} images/s",
    ]
    last = next((epoch for epoch in reversed(watch.epochs) if epoch.val_accuracy is not None), None)
    if last is not None:
        parts.append(f"val accuracy {last.val_accuracy:.4f}")
    return "  ".join(parts)


def _view(stream: TextIO) -> View:
    if not stream.isatty():
        return PlainView(stream)
    from clusterseg.cli.live import LiveView

    return LiveView(stream)


def _told(event: Event) -> list[str]:  # noqa: PLR0911 (one rule a kind)
    """An event as a line, if it is worth one."""
    if isinstance(event, Epoch):
        scores = f"val accuracy {number(event.val_accuracy)}, mean IoU {number(event.val_mean_iou)}"
        return [f"epoch {event.epoch}: step {event.step}, loss {number(event.loss)}, {scores}"]
    if isinstance(event, Checkpoint):
        return [f"saved {event.file}"]
    if isinstance(event, NotFinite):
        return [f"step {event.step}: {event.what} not finite ({event.action})"]
    if isinstance(event, Stop) and event.rank == 0:
        return [f"stopping after step {event.step} ({event.reason})"]
    if isinstance(event, RankStart) and event.rank == 0 and event.resumed_from:
        return [f"resumed from {event.resumed_from} at step {event.step}"]
    if isinstance(event, RankEnd) and event.status == "failed":
        return [f"rank {event.rank} failed: {(event.error or 'no reason given')[:LONGEST]}"]
    return []


def _told_end(count: int, end: End) -> str:
    text = f"attempt {count} ended as {end.cause}"
    if end.error:
        text += f": {end.error.strip().partition(NEWLINE)[0][:LONGEST]}"
    return text + ("; it is started again" if end.will_restart else "")
