"""What the supervisor says: to the job's output, and to supervisor.log of its attempt."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path

from clusterseg.runs.files import FILE_MODE
from clusterseg.runs.text import printable

# A launcher that prints without end must not fill the disk.
LONGEST_LAUNCHER_OUTPUT = 4 << 20  # bytes an attempt


class Journal:
    """Lines with a time (UTC). Nothing here ever fails: a full disk must not end the ranks."""

    def __init__(self) -> None:
        self._descriptor: int | None = None
        self._launcher_left = LONGEST_LAUNCHER_OUTPUT

    def open(self, path: Path) -> None:
        """From now on lines go to this attempt's log too."""
        self.close()
        self._launcher_left = LONGEST_LAUNCHER_OUTPUT
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        with suppress(OSError):
            self._descriptor = os.open(path, flags, FILE_MODE)
            os.fchmod(self._descriptor, FILE_MODE)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def say(self, message: str) -> None:
        """For the person who looks at the job: standard error and log."""
        text = printable(message)
        with suppress(OSError, ValueError):  # the terminal may have gone away
            sys.stderr.write(f"clusterseg: {text}\n")
            sys.stderr.flush()
        self.note(text)

    def note(self, message: str) -> None:
        """For the log alone."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._write(f"{stamp} {printable(message)}\n")

    def launcher(self, line: str) -> None:
        """A line that the launcher printed."""
        if self._launcher_left > 0:
            self._launcher_left -= len(line)
            self.note(f"launcher: {line}")
            if self._launcher_left <= 0:
                self.note("the launcher prints too much: the rest is left out")

    def _write(self, text: str) -> None:
        if self._descriptor is not None:
            with suppress(OSError):
                os.write(self._descriptor, text.encode("utf-8", "backslashreplace"))
