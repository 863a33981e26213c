"""From a run directory to its summary; docs/summary.md has the definitions.

Streams: what is held at a time are the windows of one attempt (40 bytes each), whatever the
number of ranks and attempts, and one small record an attempt and an epoch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from clusterseg.collect.missing import missing_attempts, what_is_missing
from clusterseg.collect.ranklog import RankLog, keep_epochs_first
from clusterseg.collect.reading import Reading, read_attempts
from clusterseg.collect.summary import (
    AttemptSummary,
    Best,
    EpochSummary,
    RankSummary,
    StepCounts,
    Summary,
)
from clusterseg.collect.timeline import Stretch, stretches
from clusterseg.collect.windows import Totals
from clusterseg.runs.attempts import Attempt, iter_attempts
from clusterseg.runs.checkpoints import checkpoint_name
from clusterseg.runs.eventlog import iter_events
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Checkpoint, Epoch, State, Steps

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Collected:
    """A summary, and the throughput over time that a plot needs (empty unless asked for)."""

    summary: Summary
    timeline: tuple[Stretch, ...] = ()


@dataclass
class _Read:
    """One attempt's figures, kept when its windows are gone."""

    attempt: Attempt
    totals: Totals
    ranks: int | None
    earliest: float | None
    latest: float | None
    epochs: dict[int, Epoch]
    missing: list[str]

    @property
    def start(self) -> float | None:
        """When it was claimed; without a readable claim, its earliest record."""
        claim = self.attempt.claim
        return claim.t if claim is not None else self.earliest


@dataclass
class _Whole:
    """What is carried over from attempt to attempt."""

    reads: list[_Read] = field(default_factory=list)
    checkpoints: dict[int, Checkpoint] = field(default_factory=dict)
    per_rank: list[RankSummary] = field(default_factory=list)
    ranks: int | None = None
    timeline: list[Stretch] = field(default_factory=list)


def collect(
    run: RunPaths,
    state: State,
    *,
    alive: bool = False,
    timeline: bool = False,
    processes: int | None = None,
) -> Collected:
    """Reads all attempts of `run`, which may be going on.

    `state` is what `status` says of it; `alive`: the supervisor of its last attempt is known to
    live. `processes`: see `read_attempts`. Damage is named in `missing`, not raised.
    """
    for _ in range(3):
        attempts = list(iter_attempts(run, salvage=True))
        running = attempts[-1].number if attempts and alive else None
        collected = _collect(run, attempts, state, running, timeline, processes)
        if not any(_was_packed_meanwhile(attempt) for attempt in attempts):
            break
    return collected


def _collect(
    run: RunPaths,
    attempts: Sequence[Attempt],
    state: State,
    running: int | None,
    timeline: bool,
    processes: int | None,
) -> Collected:
    limits = replay_limits([resume_step(attempt) for attempt in attempts])
    whole = _Whole()
    readings = read_attempts(attempts, limits, processes)
    for attempt, limit, reading in zip(attempts, limits, readings, strict=True):
        _add(whole, attempt, limit, reading, attempt.number == running)
        if timeline:
            whole.timeline += stretches(attempt.number, reading.windows, limit)
    return Collected(_summary(run, state, whole, running), tuple(whole.timeline))


def replay_limits(resume_steps: Sequence[int | None]) -> list[int | None]:
    """For each attempt the step beyond which its steps were done again; None: none were.

    That is the lowest step that any later attempt resumed from: it may have had to go back
    further than the one before it. A None in `resume_steps` is not known.
    """
    limits: list[int | None] = []
    lowest: int | None = None
    for resume in reversed(resume_steps):
        limits.append(lowest)
        if resume is not None and (lowest is None or resume < lowest):
            lowest = resume
    return limits[::-1]


def resume_step(attempt: Attempt) -> int | None:
    """The step an attempt resumed from: its claim's; without a claim, the step before its first."""
    if attempt.claim is not None:
        return attempt.claim.resume_step
    try:
        for _, stream in attempt.events():
            for event in iter_events(stream):
                if isinstance(event, Steps):
                    return event.step - event.count
    except OSError:
        pass  # named when it is read for good
    return None


def _add(
    whole: _Whole, attempt: Attempt, limit: int | None, reading: Reading, running: bool
) -> None:
    totals = reading.windows.totals(limit)
    ranks = _rank_count(attempt, reading.ranks)
    if totals.last_step is not None:
        whole.ranks = ranks
        whole.per_rank = _per_rank(attempt, reading.ranks, totals.first_window)
    epochs: dict[int, Epoch] = {}
    for log in reading.ranks:
        epochs.update(log.epochs)
        for event in log.checkpoints.values():
            keep_epochs_first(whole.checkpoints, event)
    whole.reads.append(
        _Read(
            attempt=attempt,
            totals=totals,
            ranks=ranks,
            earliest=min(_known(log.earliest for log in reading.ranks), default=None),
            latest=max(_known(log.latest for log in reading.ranks), default=None),
            epochs=epochs,
            missing=what_is_missing(attempt, reading, ranks, running=running),
        )
    )


def _summary(run: RunPaths, state: State, whole: _Whole, running: int | None) -> Summary:
    reads = whole.reads
    history = _history(reads)
    images = sum(read.totals.later_images for read in reads)
    seconds = sum(read.totals.later_seconds for read in reads)
    return Summary(
        run=run.run_id,
        state=state,
        ranks=whole.ranks,
        per_rank=whole.per_rank,
        attempts=[_attempt(read, read.attempt.number == running) for read in reads],
        steps=StepCounts(
            completed=sum(read.totals.completed for read in reads),
            replayed=sum(read.totals.replayed for read in reads),
        ),
        images_per_second=images / seconds if seconds > 0 else None,
        val_accuracy=_last(entry.val_accuracy for entry in history),
        val_mean_iou=_last(entry.val_mean_iou for entry in history),
        best=_best(run, history, whole.checkpoints),
        goodput=_goodput(reads),
        history=history,
        missing=[
            *missing_attempts([read.attempt.number for read in reads]),
            *(sentence for read in reads for sentence in read.missing),
        ],
    )


def _per_rank(
    attempt: Attempt, logs: Sequence[RankLog], first_window: int | None
) -> list[RankSummary]:
    medians = list(_known(log.own.median for log in logs))
    smallest = min(medians, default=None)
    hosts = list(attempt.claim.hosts) if attempt.claim is not None else []
    only_host = hosts[0] if len(hosts) == 1 else None
    return [
        RankSummary(
            rank=log.rank,
            host=log.host or only_host,
            images_per_second=log.own.images_per_second(first_window),
            straggler_score=_ratio(smallest, log.own.median),
        )
        for log in sorted(logs, key=lambda log: log.rank)
        if log.events
    ]


def _ratio(smallest: float | None, own: float | None) -> float | None:
    if smallest is None or own is None or own == 0:
        return None
    return smallest / own


def _rank_count(attempt: Attempt, logs: Sequence[RankLog]) -> int | None:
    """As claimed; else as a rank was told at its start; else as many as left a log."""
    if attempt.claim is not None and attempt.claim.ranks > 0:
        return attempt.claim.ranks
    return max(_known(log.world_size for log in logs), default=len(logs) or None)


def _attempt(read: _Read, running: bool) -> AttemptSummary:
    end, totals = read.attempt.end, read.totals
    until = end.t if end is not None else max(_known((read.start, read.latest)), default=None)
    first, last = totals.first_step, totals.last_step
    if end is not None and first is None:  # its ranks' logs are lost
        first, last = end.first_step, end.last_step
    cause = None if running else "unknown"
    return AttemptSummary(
        attempt=read.attempt.number,
        ranks=read.ranks,
        first_step=first,
        last_step=last,
        seconds=None if until is None or read.start is None else until - read.start,
        cause=end.cause if end is not None else cause,
    )


def _goodput(reads: Sequence[_Read]) -> float | None:
    starts = list(_known(read.start for read in reads))
    if not starts:
        return None
    ends = [read.attempt.end.t for read in reads if read.attempt.end is not None]
    latest = max([*starts, *ends, *_known(read.latest for read in reads)])
    idle = 0.0
    for number, read in enumerate(reads):
        end = read.attempt.end
        following = next(_known(later.start for later in reads[number + 1 :]), None)
        if end is not None and not end.will_restart and following is not None:
            idle += max(0.0, following - end.t)
    available = latest - starts[0] - idle
    productive = sum(read.totals.seconds for read in reads)
    return productive / available if available > 0 else None


def _history(reads: Sequence[_Read]) -> list[EpochSummary]:
    """One entry an epoch: of those that count, the latest attempt's."""
    entries = {
        epoch: EpochSummary(
            epoch=epoch,
            step=event.step,
            attempt=read.attempt.number,
            loss=event.loss,
            val_loss=event.val_loss,
            val_accuracy=event.val_accuracy,
            val_mean_iou=event.val_mean_iou,
            seconds=event.seconds,
        )
        for read in reads
        for epoch, event in read.epochs.items()
    }
    return [entries[epoch] for epoch in sorted(entries)]


def _best(
    run: RunPaths, history: Sequence[EpochSummary], checkpoints: dict[int, Checkpoint]
) -> Best | None:
    validated = [entry for entry in history if entry.val_accuracy is not None]
    if not validated:
        return None
    best = max(validated, key=lambda entry: entry.val_accuracy or 0.0)  # the first of equals
    accuracy = best.val_accuracy or 0.0
    saved = checkpoints.get(best.epoch)
    if saved is not None and (saved.step == best.step or "-step-" not in saved.file):
        file: str | None = saved.file
    else:
        named = checkpoint_name(best.epoch, accuracy)
        file = named if (run.checkpoints / named).is_file() else None
    return Best(epoch=best.epoch, val_accuracy=accuracy, file=file)


def _last(values: Iterable[float | None]) -> float | None:
    found = list(_known(values))
    return found[-1] if found else None


def _known(values: Iterable[Number | None]) -> Iterator[Number]:
    return (value for value in values if value is not None)


def _was_packed_meanwhile(attempt: Attempt) -> bool:
    return not attempt.packed and attempt.paths.packed.exists()
