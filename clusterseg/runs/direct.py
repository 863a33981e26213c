"""Large files past the system's cache of pages, where the file system lets them.

Through the cache every byte is copied once more, into pages that the kernel must find first: of a
file that nobody reads soon that is the larger part of what writing it costs the processor, which a
rank needs for its steps. What was written so, and is read so, was read from the disk, too.

Standard library only, as all that reads and writes checkpoints.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections.abc import Callable, Iterable, Iterator

# Bytes at a time. The disk must wait for each piece to be hashed, and a server may be asked to make
# each durable, so they are not small; a file below that size goes through the cache.
PIECE = 8 << 20
_REFUSALS = (errno.EINVAL, errno.EOPNOTSUPP)


def write_pieces(
    descriptor: int, parts: Iterable[memoryview], seen: Callable[[memoryview], object]
) -> None:
    """Writes `parts` (bytes) one after the other to an open, empty file; does not fsync.

    `seen` gets all of them, in order, before they are written, as pieces that are good until it
    returns. Raises OSError.
    """
    buffer, filled = _buffer(), 0
    file = _Switch(descriptor, direct=True)
    for part in parts:
        rest = part
        while rest:
            taken = min(len(rest), PIECE - filled)
            buffer[filled : filled + taken] = rest[:taken]
            filled, rest = filled + taken, rest[taken:]
            if filled == PIECE:
                seen(buffer)
                file.write(buffer)
                filled = 0
    file.off()  # the end is of any length
    seen(buffer[:filled])
    file.write(buffer[:filled])


def read_pieces(descriptor: int, *, from_disk: bool = False) -> Iterator[memoryview]:
    """All of an open file from its start on, in pieces that are good until the next.

    `from_disk`: what the cache holds of it does not count. Raises OSError.
    """
    buffer = _buffer()
    if from_disk:  # for a file system that can't be read past the cache
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    file = _Switch(descriptor, direct=from_disk)
    while count := file.read(buffer):
        yield buffer[:count]


class _Switch:
    """Reads and writes a file past the cache until that is refused, or its end comes."""

    def __init__(self, descriptor: int, *, direct: bool) -> None:
        self._descriptor = descriptor
        self._direct = direct
        if direct:
            self._set(os.O_DIRECT)

    def off(self) -> None:
        """From here on through the cache."""
        if self._direct:
            self._direct = False
            self._set(0)

    def write(self, data: memoryview) -> None:
        while data:
            written = self._try(os.write, data)
            if written == 0 and not self._direct:
                raise OSError("write returned 0 bytes")
            if written < len(data):  # the rest begins and ends where a block does not
                self.off()
            data = data[written:]

    def read(self, buffer: memoryview) -> int:
        """Bytes read; 0 at the end."""
        count = self._try(lambda descriptor, into: os.readv(descriptor, [into]), buffer)
        if count < len(buffer) and self._direct:
            self.off()
            return count or self.read(buffer)
        return count

    def _try(self, call: Callable[[int, memoryview], int], data: memoryview) -> int:
        try:
            return call(self._descriptor, data)
        except OSError as error:
            if not self._direct or error.errno not in _REFUSALS:
                raise
            return 0  # blocks of another size, or none at all

    def _set(self, flag: int) -> None:
        flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL) & ~os.O_DIRECT
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags | flag)
        except OSError as error:
            if not flag or error.errno not in _REFUSALS:
                raise
            self._direct = False


def _buffer() -> memoryview:
    """Begins at a page, as the disk wants it; shared, so that a fork leaves it where it is."""
    return memoryview(mmap.mmap(-1, PIECE))
