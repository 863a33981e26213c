"""From a run directory to its summary; docs/summary.md has the definitions.

Streams: what is held at a time are the windows of one attempt (40 bytes each), whatever the
number of ranks and attempts, and one small record an attempt and an epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice

from clusterseg.collect import figures
from clusterseg.collect.figures import AttemptRead, known
from clusterseg.collect.missing import missing_attempts, what_is_missing
from clusterseg.collect.ranklog import keep_epochs_first
from clusterseg.collect.reading import Reading, read_attempts
from clusterseg.collect.summary import Best, EpochSummary, RankSummary, Summary
from clusterseg.collect.timeline import Stretch, stretches
from clusterseg.runs.attempts import Attempt, iter_attempts
from clusterseg.runs.checkpoints import checkpoint_name
from clusterseg.runs.eventlog import iter_events
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Checkpoint, Epoch, State, Steps


@dataclass(frozen=True)
class Collected:
    """A summary, and the throughput over time that a plot needs (empty unless asked for)."""

    summary: Summary
    timeline: tuple[Stretch, ...] = ()


@dataclass
class _Whole:
    """What is carried over from attempt to attempt."""

    reads: list[AttemptRead] = field(default_factory=list)
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
        whole = _read(attempts, running, timeline=timeline, processes=processes)
        if not any(_was_packed_meanwhile(attempt) for attempt in attempts):
            break
    return Collected(_summary(run, state, whole, running), tuple(whole.timeline))


def _read(
    attempts: Sequence[Attempt], running: int | None, *, timeline: bool, processes: int | None
) -> _Whole:
    limits = figures.replay_limits([resume_step(attempt) for attempt in attempts])
    whole = _Whole()
    readings = read_attempts(attempts, limits, processes)
    for attempt, limit, reading in zip(attempts, limits, readings, strict=True):
        _add(whole, attempt, limit, reading, attempt.number == running)
        if timeline:
            whole.timeline += stretches(attempt.number, reading.windows, limit)
    return whole


def resume_step(attempt: Attempt) -> int | None:
    """The step an attempt resumed from: its claim's; without a claim, the step before its first."""
    if attempt.claim is not None:
        return attempt.claim.resume_step
    steps = []
    with suppress(OSError):  # named when the attempt is read for good
        for _, stream in attempt.events():
            with suppress(OSError):
                windows = (event for event in iter_events(stream) if isinstance(event, Steps))
                steps += [first.step - first.count for first in islice(windows, 1)]
    return min(steps, default=None)


def _add(
    whole: _Whole, attempt: Attempt, limit: int | None, reading: Reading, running: bool
) -> None:
    totals = reading.windows.totals(limit)
    ranks = figures.rank_count(attempt, reading.ranks)
    if totals.last_step is not None:
        whole.ranks = ranks
        whole.per_rank = figures.per_rank(attempt, reading.ranks, totals.first_window)
    epochs: dict[int, Epoch] = {}
    for log in reading.ranks:
        epochs.update(log.epochs)
        for event in log.checkpoints.values():
            keep_epochs_first(whole.checkpoints, event)
    whole.reads.append(
        AttemptRead(
            attempt=attempt,
            totals=totals,
            ranks=ranks,
            earliest=min(known(log.earliest for log in reading.ranks), default=None),
            latest=max(known(log.latest for log in reading.ranks), default=None),
            epochs=epochs,
            missing=what_is_missing(attempt, reading, ranks, running=running),
        )
    )


def _summary(run: RunPaths, state: State, whole: _Whole, running: int | None) -> Summary:
    reads = whole.reads
    history = figures.history(reads)
    return Summary(
        run=run.run_id,
        state=state,
        ranks=whole.ranks,
        per_rank=whole.per_rank,
        attempts=[figures.describe(read, read.attempt.number == running) for read in reads],
        steps=figures.count_steps(reads),
        images_per_second=figures.images_per_second(reads),
        val_accuracy=figures.last_known(entry.val_accuracy for entry in history),
        val_mean_iou=figures.last_known(entry.val_mean_iou for entry in history),
        best=_best(run, history, whole.checkpoints),
        goodput=figures.goodput(reads),
        history=history,
        missing=[
            *missing_attempts([read.attempt.number for read in reads]),
            *(sentence for read in reads for sentence in read.missing),
        ],
    )


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


def _was_packed_meanwhile(attempt: Attempt) -> bool:
    return not attempt.packed and attempt.paths.packed.exists()
