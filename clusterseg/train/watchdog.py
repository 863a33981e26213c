"""A rank that writes nothing for too long writes the stacks of all its threads into its log.

The supervisor judges a rank by the growth of its event file, and can ask ranks for their stacks on
its own host only. So every rank watches itself by the same rule, a little more impatiently: before
ranks are ended for a hang, all of them that still can have said where they stand.

faulthandler's own thread writes them; it needs no interpreter, and works while all else is stuck.
"""

from __future__ import annotations

import faulthandler
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from clusterseg.runs.records import Checkpoint, Epoch, Event, Phase, RankEnd, RankStart, Steps
from clusterseg.train.patient_events import PatientEvents

_REARM = 1.0  # seconds; to arm costs some 0.1 ms (a thread is started)


@dataclass(frozen=True)
class Limits:
    """How long this rank may be silent, in seconds: each below what the supervisor bears
    (`supervise.limits.Hang` has the same names)."""

    startup: float = 240.0
    base: float = 45.0
    factor: float = 3.0
    validation: float = 1500.0


LIMITS = Limits()


class Pace:
    """What this rank's own events allow, as the supervisor reads them (`supervise.watch`)."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._epoch = 0
        self._stepped = self._validates = self._starts = self._ended = False
        self._window = self._save = 0.0
        self._validation: float | None = None

    def note(self, event: Event) -> None:
        """Takes one event in, in the order they are written."""
        if isinstance(event, Steps):
            # A window that completes an epoch is followed by validation.
            self._validates, self._epoch = event.epoch > self._epoch, event.epoch
            if self._stepped and not self._starts:  # such a one holds the compilation
                self._window = max(self._window, event.seconds)
            self._stepped, self._starts = True, False
        elif isinstance(event, RankStart):
            self._epoch = event.epoch
        elif isinstance(event, RankEnd):
            self._ended = True
        elif isinstance(event, Checkpoint):
            self._save = max(self._save, event.blocked_seconds + event.write_seconds)
        elif isinstance(event, Phase) and event.name == "validate":
            self._validation = max(self._validation or 0.0, event.seconds)
        elif isinstance(event, Phase) and event.name == "startup":
            self._starts = True
        if isinstance(event, Epoch | Phase):
            self._validates = False

    def expect_save(self, seconds: float) -> None:
        """A save that all ranks wait for may take as long as one that rank 0 alone has seen, and
        the supervisor in rank 0's events."""
        self._save = max(self._save, seconds)

    def allowed(self) -> float:
        """Seconds that may pass until the next event."""
        limits = self._limits
        if self._ended:
            return limits.base
        stepping = limits.base + limits.factor * max(self._window, self._save)
        if not self._stepped:
            return max(limits.startup, limits.base)
        if self._starts:
            return max(limits.startup, stepping)
        if not self._validates:
            return stepping
        if self._validation is None:
            return max(limits.validation, stepping)
        return max(limits.base + limits.factor * self._validation, stepping)


class Watchdog:
    """Has the stacks written into `log` if no event is noted in time. One a process."""

    def __init__(
        self,
        log: TextIO,
        limits: Limits | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log, self._clock = log, clock
        self._pace = Pace(limits or LIMITS)
        self._armed, self._limit = float("-inf"), 0.0

    def start(self) -> None:
        """From here on."""
        self._arm(self._clock())

    def note(self, event: Event) -> None:
        """The rank lives: it has just written `event`."""
        self._pace.note(event)
        self.alive()

    def expect_save(self, seconds: float) -> None:
        """The rank lives, and is about to wait for a save; the longest so far took `seconds`."""
        self._pace.expect_save(seconds)
        self.alive()

    def alive(self) -> None:
        """The rank lives: its time begins anew."""
        now = self._clock()
        late = now - self._armed
        if late > self._limit:
            with suppress(OSError):  # the log may stand on a disk that is full
                self._log.write(f"the stacks above are from {self._limit:.0f} s without an event; ")
                self._log.write(f"after {late:.0f} s this rank goes on\n")
                self._log.flush()
        if late >= min(_REARM, self._limit / 10) or self._pace.allowed() != self._limit:
            self._arm(now)

    @staticmethod
    def stop() -> None:
        """Nothing more is written."""
        faulthandler.cancel_dump_traceback_later()

    def _arm(self, now: float) -> None:
        self._armed, self._limit = now, self._pace.allowed()
        faulthandler.dump_traceback_later(self._limit, file=self._log)


class WatchedEvents(PatientEvents):
    """The rank's event log, with a watchdog that runs from its opening to its closing."""

    def __init__(self, path: Path, watchdog: Watchdog | None = None) -> None:
        super().__init__(path)
        self._watchdog = watchdog or Watchdog(sys.stderr)
        self._watchdog.start()

    def write(self, event: Event) -> None:
        super().write(event)
        self._watchdog.note(event)

    def touch(self) -> None:
        super().touch()
        self._watchdog.alive()

    def expect_save(self, seconds: float) -> None:
        """All ranks are about to wait for a save; the longest so far took `seconds`."""
        self._watchdog.expect_save(seconds)

    def close(self) -> None:
        self._watchdog.stop()
        super().close()
