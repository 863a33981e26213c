"""lr-find.json: what a learning rate range test found, an entry an optimizer."""

from __future__ import annotations

from enum import StrEnum

import msgspec
from msgspec import Struct

from clusterseg.runs import files
from clusterseg.runs.paths import RunPaths

_LARGEST = 16 << 20  # bytes


class Ending(StrEnum):
    """Why a sweep over the rates ended."""

    WHOLE_RANGE = "whole_range"
    DIVERGED = "diverged"
    NOT_FINITE = "not_finite"
    STOPPED = "stopped"


class Suggestion(Struct, frozen=True, kw_only=True):
    """Rates as the optimizer applies them; `setting` is `learning_rate` as job.yaml has to say it.

    They differ by the number of ranks with `scale_with_ranks`. `begin` and `minimum`: where the
    loss begins to fall, and where it is lowest; `steepest`: where it falls most.
    """

    learning_rate: float
    begin: float
    steepest: float
    minimum: float
    setting: float | None = None


class Sweep(Struct, frozen=True, kw_only=True):
    """One optimizer, from a fresh model on: the loss of the global batch by learning rate.

    `why`: in a sentence, why there is no suggestion; None if there is one. `attempt` made it, in
    `seconds`. A loss that was not finite is in no list.
    """

    optimizer: str
    ended: Ending
    attempt: int
    seconds: float
    suggestion: Suggestion | None
    why: str | None
    rates: list[float]
    losses: list[float]
    smooth_rates: list[float]
    smooth_losses: list[float]


class LrFind(Struct, frozen=True, kw_only=True):
    """The whole file. `t` in unix seconds; sweeps in the order they were asked for."""

    run: str
    t: float
    ranks: int
    global_batch: int
    scale_with_ranks: bool
    sweeps: list[Sweep]


def write_lr_find(run: RunPaths, found: LrFind) -> None:
    """Writes the file anew, durably. Raises OSError."""
    data = msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n"
    files.replace(run.lr_find, data)


def read_lr_find(run: RunPaths) -> LrFind | None:
    """What the file says; None if there is none that can be read."""
    try:
        return msgspec.json.decode(files.read_capped(run.lr_find, _LARGEST), type=LrFind)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
