"""A little room that an attempt keeps for its last word: a full disk takes none otherwise."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from clusterseg.runs.files import FILE_MODE

_SIZE = 32 << 10  # bytes: the end record, the last lines of the log, and blocks of 4 KiB


class Ballast:
    """A file of some blocks. Nothing here fails: without it only less is known afterwards."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> None:
        """Makes it; it takes room on the disk, not just a name."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        with suppress(OSError):
            descriptor = os.open(self._path, flags, FILE_MODE)
            try:
                # Noise: file systems that compress keep no room for zeros.
                os.write(descriptor, os.urandom(_SIZE))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def drop(self) -> None:
        """Gives the room away; more than once does nothing."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
