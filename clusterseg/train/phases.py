"""What a rank says of its own cost in the event log: seconds by part, memory."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def ignore(part: str) -> None:
    """For whoever does not want to know."""


class Laps:
    """Calling it ends a part; what lies between two calls belongs to the second one's name."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._last = clock()
        self.parts: dict[str, float] = {}

    def __call__(self, part: str) -> None:
        now = self._clock()
        self.add(part, now - self._last)
        self._last = now

    def add(self, part: str, seconds: float) -> None:
        """Seconds from elsewhere, before this clock ran."""
        self.parts[part] = self.parts.get(part, 0.0) + seconds


def peak_bytes(status: Path = Path("/proc/self/status")) -> int:
    """The most resident memory that this process had, in bytes (proc(5), VmHWM).

    Where the kernel does not say it, what getrusage(2) does, which counts the launcher's as well
    if that was larger: exec keeps the number.
    """
    with suppress(OSError, ValueError):
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
