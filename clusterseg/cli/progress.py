"""A line on stderr that counts up on a terminal; into a pipe nothing is written."""

from __future__ import annotations

import sys
import time

_SHORTEST = 0.1  # seconds between two
_BAR = 24  # characters


class ProgressLine:
    """A context manager; the line is gone at its end."""

    def __init__(self) -> None:
        self._shown = 0.0

    def __enter__(self) -> ProgressLine:
        return self

    def show(self, text: str) -> None:
        """Writes `text` (safe, one line) instead of what is there."""
        if not sys.stderr.isatty():
            return
        sys.stderr.write(f"\r\x1b[K{text[:120]}")
        sys.stderr.flush()
        self._shown = time.monotonic()

    def count(self, what: str, done: int, total: int) -> None:
        """Writes a bar, ten times a second at most and at the end."""
        if done < total and time.monotonic() - self._shown < _SHORTEST:
            return
        full = _BAR * done // total if total else _BAR
        self.show(f"{what} [{'#' * full}{'.' * (_BAR - full)}] {done} of {total}")

    def __exit__(self, *error: object) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
