"""What to do when a checkpoint can't be written: a pure function of the failures so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

from clusterseg.runs.space import RESERVE, Space
from clusterseg.train.failures import FailureKind

_PASSING = (FailureKind.DISK_FULL, FailureKind.IO)


class Act(Enum):
    """RETRY: the training goes on. GIVE_UP: all ranks end, with the state of before on the disk."""

    RETRY = auto()
    GIVE_UP = auto()


class Next(NamedTuple):
    """What to do, and from when on (RETRY; by the clock of the failures)."""

    act: Act
    at: float


@dataclass(frozen=True)
class Trouble:
    """A save that failed at `at` (seconds of a steady clock)."""

    kind: FailureKind
    at: float


@dataclass(frozen=True)
class SavingPatience:
    """How long a full disk is borne. Seconds, and bytes of `reserve`.

    After the n-th failure in a row the next try comes after `delays[n - 1]`, or with the next
    save that is due. It is given up at `failures` in a row, the first of them at least `least`
    ago. In a hurry (the ranks were asked to stop) there are `hurried_tries`, `hurried_delay`
    apart, and then further ones, `later_delay` apart, if it is known by when the stop is to be over
    and a try can begin `spare` and a write before that. No delay may be as long as the silence that
    the supervisor takes for a hang (60 s): at the end of a run all ranks wait.
    """

    delays: tuple[float, ...] = (10.0, 30.0, 40.0)
    failures: int = 4
    least: float = 60.0
    hurried_tries: int = 3
    hurried_delay: float = 1.0
    later_delay: float = 3.0
    spare: float = 8.0
    reserve: int = RESERVE


def after_failures(
    history: Sequence[Trouble],
    patience: SavingPatience,
    *,
    hurry: bool = False,
    until: float | None = None,
) -> Next:
    """What follows from `history`, the failures since the last save that went well.

    In a hurry: since the hurry began, and `until` is when the last try may begin, by the clock of
    the failures; None if nobody knows. There is at least one.
    """
    last = history[-1]
    count = len(history)
    if last.kind not in _PASSING:  # the same would come again
        return Next(Act.GIVE_UP, last.at)
    if hurry:
        if count < patience.hurried_tries:
            return Next(Act.RETRY, last.at + patience.hurried_delay)
        following = last.at + patience.later_delay
        act = Act.GIVE_UP if until is None or following > until else Act.RETRY
        return Next(act, following)
    if count >= patience.failures and last.at - history[0].at >= patience.least:
        return Next(Act.GIVE_UP, last.at)
    return Next(Act.RETRY, last.at + patience.delays[min(count, len(patience.delays)) - 1])


def foresee(needed: int, space: Space, *, reserve: int) -> str | None:
    """Why a file of `needed` bytes will not fit, or None."""
    if space.inodes == 0:
        return "no inode (file) is free"
    if space.bytes is not None and space.bytes < needed + reserve:
        kept = f" of which {_megabytes(reserve)} are kept for logs" if reserve else ""
        return f"it needs {_megabytes(needed)}, {_megabytes(space.bytes)} are free{kept}"
    return None


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
