"""The summary of a run, as `collect --json` prints it; docs/summary.md defines every figure.

Times are in seconds, `t` in unix seconds. A figure that can't be known is None (JSON null).
"""

from __future__ import annotations

from msgspec import Struct

from clusterseg.runs.records import State


class RankSummary(Struct, frozen=True, kw_only=True):
    """A rank of the last attempt that stepped. A score below `STRAGGLER` marks a straggler."""

    rank: int
    host: str | None
    images_per_second: float | None
    straggler_score: float | None


class AttemptSummary(Struct, frozen=True, kw_only=True):
    """One attempt, whether its steps counted or were replayed. `seconds` is its wall time."""

    attempt: int
    ranks: int | None
    first_step: int | None
    last_step: int | None
    seconds: float | None
    cause: str | None


class StepCounts(Struct, frozen=True, kw_only=True):
    """Optimizer steps that count, and those that a later attempt had to do again."""

    completed: int
    replayed: int


class EpochSummary(Struct, frozen=True, kw_only=True):
    """One completed epoch, as rank 0 of `attempt` wrote it."""

    epoch: int
    step: int
    attempt: int
    loss: float | None
    val_loss: float | None
    val_accuracy: float | None
    val_mean_iou: float | None
    seconds: float


class Best(Struct, frozen=True, kw_only=True):
    """The epoch of the highest validation accuracy, the earliest of equals, and its checkpoint."""

    epoch: int
    val_accuracy: float
    file: str | None


class Summary(Struct, frozen=True, kw_only=True):
    """What a run did. `missing` says in plain sentences what could not be read."""

    run: str
    state: State
    ranks: int | None
    per_rank: list[RankSummary]
    attempts: list[AttemptSummary]
    steps: StepCounts
    images_per_second: float | None
    val_accuracy: float | None
    val_mean_iou: float | None
    best: Best | None
    goodput: float | None
    history: list[EpochSummary]
    missing: list[str]


# NVRx's threshold: a rank that computes at less than this part of the quickest rank's pace.
STRAGGLER = 0.75
