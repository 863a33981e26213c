"""The heartbeat of an attempt: a counter that its supervisor rewrites every few seconds.

A reader tells life by the counter having moved between two fresh opens, by its own clock. The
time beside it is for people: clocks of hosts differ and jump, and a file's modification time
comes from caches.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from msgspec import Struct

from clusterseg.runs import files

_LINE = "{count:020d} {t:017.3f}\n"  # of constant length: a rewrite never leaves a tail


class Heartbeat(Struct, frozen=True, kw_only=True):
    """`count` only grows within an attempt; `t` is the writer's clock, unix seconds."""

    count: int
    t: float


class HeartbeatWriter:
    """Writes the counter of one attempt; the file is made by the first beat."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._count = 0

    def beat(self) -> None:
        """Counts on, durably. Raises OSError; the counter then is not known to have moved."""
        self._count += 1
        line = _LINE.format(count=self._count, t=time.time()).encode()
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        # Opened afresh each time: NFS hands data to other hosts when the writer closes.
        descriptor = os.open(self._path, flags, files.FILE_MODE)
        try:
            os.pwrite(descriptor, line, 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_heartbeat(path: Path) -> Heartbeat | None:
    """The last beat; None if there is none yet, or a torn one. Raises OSError."""
    try:
        text = files.read_capped(path, 64)
    except FileNotFoundError:
        return None
    parts = text.split()
    try:
        return Heartbeat(count=int(parts[0]), t=float(parts[1]))
    except (IndexError, ValueError):
        return None
