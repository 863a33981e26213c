"""Events that outlive a full disk: kept in memory until they can be written."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from clusterseg.runs.eventlog import EventWriter
from clusterseg.runs.records import Event, RankEnd
from clusterseg.train.failures import warn

_MOST = 10_000  # events: some megabytes, hours of training
_BETWEEN = 1.0  # seconds between two tries


class PatientEvents(EventWriter):
    """An EventWriter whose `write` raises nothing: a rank must not end for its log.

    What can't be written waits, in order, and is tried with a later event, no more than once a
    second; the last event of a rank is always tried. The file is touched then, so that whoever
    watches it sees that this rank lives, though it can't grow. A line that the disk took a part
    of is gone on with where it was cut, so that it is neither torn nor there twice. Beyond `most`
    waiting events the oldest are lost, and counted in `lost`.
    """

    def __init__(
        self, path: Path, *, most: int = _MOST, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(path)
        self.lost = 0
        self._most = max(2, most)
        self._clock = clock
        self._waiting: deque[bytes] = deque()
        self._failed: float | None = None
        if self._torn:  # by the process before
            self._waiting.append(b"\n")

    def write(self, event: Event) -> None:
        self._waiting.append(self._encoder.encode(event) + b"\n")
        if len(self._waiting) > self._most:
            del self._waiting[1]  # the first one may be half written
            self.lost += 1
        due = self._failed is None or self._clock() - self._failed >= _BETWEEN
        if due or isinstance(event, RankEnd):
            self._flush()

    def close(self) -> None:
        if self._descriptor >= 0 and self._waiting:
            self._flush()
        super().close()

    def _flush(self) -> None:
        try:
            while self._waiting:
                self._waiting[0] = self._waiting[0][os.write(self._descriptor, self._waiting[0]) :]
                if not self._waiting[0]:
                    self._waiting.popleft()
        except OSError as error:
            if self._failed is None:
                warn(f"events can't be written and wait: {error.strerror or error}")
            self._failed = self._clock()
            with suppress(OSError):  # needs no room
                os.utime(self._descriptor)
        else:
            if self._failed is not None:
                warn(f"events are written again; {self.lost} were lost")
            self._failed = None
