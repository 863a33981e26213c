"""Why a rank should stop: signals and the stop file. Looking costs next to nothing."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType

from clusterseg.runs.control import read_stop

SOURCES = ("SIGTERM", "SIGUSR1", "stop file")
_LOOK_SECONDS = 1.0


class StopSources:
    """The requests that reached this rank so far, one flag for each of SOURCES.

    Signal handlers only set a flag: what follows from it is agreed at the next step boundary.
    The file is opened afresh at most once a second. A request is never taken back.
    """

    def __init__(self, stop_file: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stop_file = stop_file
        self._clock = clock
        self._next_look = clock()
        self._flags = [False] * len(SOURCES)
        self._reason = SOURCES[2]
        self._deadline: float | None = None
        self._installed = False

    def install(self) -> None:
        """Takes the signals over; only the main thread may."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGUSR1, self._on_signal)
        self._installed = True

    def ignore(self) -> None:
        """To be called when all is saved, before the ranks part: the first one that ends with
        code 75 has srun send TERM to the others, and Python takes its handlers away as it ends."""
        if self._installed:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)

    def flags(self) -> list[bool]:
        """One flag for each of SOURCES."""
        now = self._clock()
        if self._stop_file is not None and not self._flags[2] and now >= self._next_look:
            self._next_look = now + _LOOK_SECONDS
            self._read()
        return list(self._flags)

    def asked(self) -> bool:
        """Whether any request reached this rank; for looking while it waits."""
        return any(self.flags())

    def deadline(self) -> float | None:
        """By when a stop that the file asks for is to be over, in unix seconds; None if that is not
        known. Opens the file afresh: a later request may be a more urgent one."""
        self._read()
        return self._deadline

    def reason(self, agreed: list[bool]) -> str:
        """What the `stop` event says, given the flags that all ranks agreed on."""
        if agreed[2]:
            if self._stop_file is not None and not self._flags[2]:
                self._read()  # another rank was quicker
            return self._reason
        return next(name for name, on in zip(SOURCES, agreed, strict=True) if on)

    def _read(self) -> None:
        # A file system that is away for a moment is no request to stop.
        with suppress(OSError):
            request = read_stop(self._stop_file) if self._stop_file else None
            if request is not None:
                self._flags[2] = True
                self._reason = request.reason or SOURCES[2]
                self._deadline = request.deadline

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._flags[0 if number == signal.SIGTERM else 1] = True
