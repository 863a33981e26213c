"""What is to be written to a descriptor that another process reads as slowly as it likes."""

from __future__ import annotations

import os

_FULL = 1 << 20  # bytes
_NEVER_BLOCKS = 4096  # PIPE_BUF: so much fits where poll says that a pipe takes something


class OutputQueue:
    """Bytes for `descriptor`, written piece by piece when poll says that it takes some."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._bytes = bytearray()
        self._gone = False

    @property
    def waits(self) -> bool:
        """Whether there is something to write."""
        return bool(self._bytes)

    @property
    def full(self) -> bool:
        """Whether so much waits that no more should be put."""
        return len(self._bytes) > _FULL

    def put(self, text: bytes) -> None:
        if not self._gone:
            self._bytes += text

    def write(self) -> None:
        """A piece that does not block."""
        try:
            done = os.write(self.descriptor, self._bytes[:_NEVER_BLOCKS])
        except BlockingIOError:
            return
        except OSError:  # the reader has gone, or the disk is full: who wrote it need not know
            self._gone, done = True, len(self._bytes)
        del self._bytes[:done]

    def drop(self) -> None:
        """Forgets what waits."""
        self._bytes.clear()
