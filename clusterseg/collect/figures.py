"""The figures of the summary, each a pure function of what was read of the attempts.

docs/summary.md has the definitions; tests/collect/reference.py says the same, slowly.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from clusterseg.collect.ranklog import RankLog
from clusterseg.collect.summary import (
    AttemptSummary,
    EpochSummary,
    RankSummary,
    StepCounts,
)
from clusterseg.collect.windows import Totals
from clusterseg.runs.attempts import Attempt
from clusterseg.runs.records import Epoch

Number = TypeVar("Number", int, float)


@dataclass
class AttemptRead:
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


def count_steps(reads: Sequence[AttemptRead]) -> StepCounts:
    """Steps that count, and those that were done again."""
    return StepCounts(
        completed=sum(read.totals.completed for read in reads),
        replayed=sum(read.totals.replayed for read in reads),
    )


def images_per_second(reads: Sequence[AttemptRead]) -> float | None:
    """Of all ranks, over the counted windows but each attempt's first; None if there are none."""
    seconds = sum(read.totals.later_seconds for read in reads)
    return sum(read.totals.later_images for read in reads) / seconds if seconds > 0 else None


def goodput(reads: Sequence[AttemptRead]) -> float | None:
    """Seconds of counted windows over those in which the run could have done steps."""
    starts = list(known(read.start for read in reads))
    if not starts:
        return None
    ends = [read.attempt.end.t for read in reads if read.attempt.end is not None]
    latest = max([*starts, *ends, *known(read.latest for read in reads)])
    idle = 0.0
    for number, read in enumerate(reads):
        end = read.attempt.end
        following = next(known(later.start for later in reads[number + 1 :]), None)
        if end is not None and not end.will_restart and following is not None:
            idle += max(0.0, following - end.t)
    available = latest - starts[0] - idle
    productive = sum(read.totals.seconds for read in reads)
    return productive / available if available > 0 else None


def per_rank(
    attempt: Attempt, logs: Sequence[RankLog], first_window: int | None
) -> list[RankSummary]:
    """Every rank that left something readable. `first_window`: the attempt's, by its last step."""
    medians = list(known(log.own.median for log in logs))
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


def rank_count(attempt: Attempt, logs: Sequence[RankLog]) -> int | None:
    """As claimed; else as a rank was told at its start; else as many as left a log."""
    if attempt.claim is not None and attempt.claim.ranks > 0:
        return attempt.claim.ranks
    return max(known(log.world_size for log in logs), default=len(logs) or None)


def describe(read: AttemptRead, running: bool) -> AttemptSummary:
    """One attempt as the summary lists it. `running`: it goes on, so that it has no cause."""
    end, totals = read.attempt.end, read.totals
    until = end.t if end is not None else max(known((read.start, read.latest)), default=None)
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


def history(reads: Sequence[AttemptRead]) -> list[EpochSummary]:
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


def last_known(values: Iterable[float | None]) -> float | None:
    """The last one that is not None."""
    found = list(known(values))
    return found[-1] if found else None


def _ratio(smallest: float | None, own: float | None) -> float | None:
    if smallest is None or own is None or own == 0:
        return None
    return smallest / own


def known(values: Iterable[Number | None]) -> Iterator[Number]:
    """Those that are not None."""
    return (value for value in values if value is not None)
