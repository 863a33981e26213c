"""How long to wait for what: pure functions, all times in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from clusterseg.runs.claims import Patience

_FIRST_SAVE = 10.0  # seconds that a save is taken for until one was seen
_FENCE_TICK = 1.0  # seconds between two looks at the clock
_LATE = 3  # times the tick: a look that comes so late means that the looker itself was stopped


@dataclass(frozen=True)
class Hang:
    """When silence is a hang.

    `startup`: before the first step (imports, data index, compilation). Then a rank may be
    silent for `base` + `factor` times the longest window seen (NVRx takes 5 times the observed
    interval). `validation`: for the first validation, whose length nobody knows yet.
    """

    startup: float = 300.0
    base: float = 60.0
    factor: float = 5.0
    validation: float = 1800.0


@dataclass(frozen=True)
class Timing:
    """The supervisor's clock: how often it looks, and how long it waits.

    `terminate`: between TERM and KILL. `stop_train`, `stop_command`: for ranks that were asked
    to stop, beside what their saves were measured to take; a `command:` program may not know
    about stop files at all. `cleanup`: for killed processes to be gone.
    `lost`: for ranks that may still save when the launcher has lost a host; with `terminate` less
    than the 30 s (KillWait) after which Slurm kills the supervisor, too.
    """

    look: float = 1.0
    terminate: float = 8.0
    stop_train: float = 120.0
    stop_command: float = 30.0
    cleanup: float = 5.0
    lost: float = 8.0
    patience: Patience = field(default_factory=Patience)
    hang: Hang = field(default_factory=Hang)


@dataclass(frozen=True)
class FenceTerms:
    """When the second process ends ranks that have no lease; seconds.

    `silence`: so old the last good beat may be while ranks run. `spare`: how long one that slept
    (a suspended machine, a frozen control group) waits for the supervisor, which slept with it,
    to look at the claims and beat. `terminate`, `cleanup`: between TERM and KILL, and for killed
    processes to be gone.
    """

    silence: float
    spare: float
    terminate: float
    cleanup: float

    @property
    def tick(self) -> float:
        return min(_FENCE_TICK, self.silence / 4)


def fence_terms(timing: Timing) -> FenceTerms:
    """Half of the grace, so that all is over before somebody who waits for all of it takes over."""
    grace = timing.patience.grace
    return FenceTerms(grace / 2, grace / 4, min(timing.terminate, grace / 4), timing.cleanup)


class Overdue:
    """Whether the last good beat is too old, from the times (CLOCK_BOOTTIME) of looks at it."""

    def __init__(self, terms: FenceTerms, now: float) -> None:
        self._terms, self._looked, self._spared = terms, now, now

    def look(self, now: float, beat: float) -> bool:
        """To be asked every `terms.tick` seconds: a look that is late means a pause."""
        if now - self._looked > _LATE * self._terms.tick:
            self._spared = now + self._terms.spare
        self._looked = now
        return now >= self._spared and now - beat > self._terms.silence


@dataclass(frozen=True)
class Silence:
    """A rank for the question of hanging. `process`: its state letter in /proc, None elsewhere.

    `at_epoch_end`: its last window completed an epoch, so that it validates. `starting`: it has
    just built a model, and its next step holds the compilation.
    """

    rank: int
    silent: float
    step: int | None = None
    last_t: float | None = None
    at_epoch_end: bool = False
    starting: bool = False
    ended: bool = False
    process: str | None = None

    @property
    def is_stopped(self) -> bool:
        """Its process can do nothing at all: SIGSTOP, a debugger.

        One that is gone is none: in a container's own process ids it only seems so.
        """
        return self.process in ("T", "t")


def allowed_silence(
    rank: Silence, limits: Hang, *, window: float, validation: float | None
) -> float:
    """How long this rank may write nothing.

    `window` is the longest window of any rank so far, `validation` the longest validation,
    None before the first one.
    """
    if rank.ended:
        return limits.base
    stepping = limits.base + limits.factor * window
    if rank.is_stopped:  # neither compiling nor validating
        return stepping
    if rank.step is None or rank.starting:
        return max(limits.startup, limits.base if rank.step is None else stepping)
    if not rank.at_epoch_end:
        return stepping
    if validation is None:
        return max(limits.validation, stepping)
    return max(limits.base + limits.factor * validation, stepping)


def find_hang(
    ranks: Sequence[Silence],
    limits: Hang,
    *,
    window: float,
    validation: float | None,
    reports_steps: bool,
) -> Silence | None:
    """The rank that holds up the others, if any has been silent for too long; else None.

    Ranks that wait for a stuck one fall silent with it. What tells it: a process that is
    stopped or gone, then the lowest step, then the earliest last word. `reports_steps`: these
    ranks surely write windows; of others only those that have are judged.
    """
    running = [rank for rank in ranks if not rank.ended]
    judged = running or ranks  # all have ended, and the launcher has not
    if not any(
        rank.silent > allowed_silence(rank, limits, window=window, validation=validation)
        for rank in judged
        if reports_steps or rank.step is not None or rank.ended
    ):
        return None
    return min(
        judged,
        key=lambda rank: (
            not rank.is_stopped and rank.process != "gone",
            -1 if rank.step is None else rank.step,
            rank.last_t or 0.0,
        ),
    )


def stop_patience(timing: Timing, *, train: bool, save: float | None, window: float) -> float:
    """How long ranks that were asked to stop may take: their step, their save, and slack."""
    return (timing.stop_train if train else timing.stop_command) + 3 * (save or 0.0) + 2 * window


def stop_lead(limit: float, *, save: float | None, window: float) -> float:
    """How long before the end of the allocation (which is `limit` long) the stop is asked.

    Twice the measured save and window, so that a slow file system does not cost the save; never
    more than half the time there is.
    """
    measured = 2 * (save if save is not None else _FIRST_SAVE) + 2 * window + 10.0
    return min(measured, limit / 2)


@dataclass(frozen=True)
class Saves:
    """What an attempt shows of saving: its longest save in seconds, None if it made none.

    `cut_off`: it was asked to stop for the time limit, and ended before its ranks had saved.
    """

    longest: float | None = None
    cut_off: bool = False


def expected_save(earlier: Sequence[Saves]) -> float | None:
    """How long a save may take, by the last attempts, oldest first; None: nothing is known.

    Twice as long for each one in a row that was cut off: a save that never comes to its end is
    never measured, and each time limit would meet it again.
    """
    known = [one.longest for one in earlier if one.longest is not None]
    cut_off = len(list(takewhile(lambda one: one.cut_off, reversed(earlier))))
    if not known and not cut_off:
        return None
    return max(known, default=_FIRST_SAVE) * 2.0**cut_off
