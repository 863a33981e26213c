"""Text from outside (logs, host names, output of launchers), made fit for a terminal or record."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable
from pathlib import Path

from clusterseg.runs.eventlog import open_regular

# C0 and C1 controls but for tab and newline, and the marks that turn the direction of text.
_HARMFUL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """`text` with its controls written out (`\\x1b`); tabs and newlines stay."""
    return _HARMFUL.sub(_escape, text)


def one_line(text: str, longest: int) -> str:
    """`text` on one line of at most `longest` characters."""
    line = printable(text.replace("\n", "\\n"))
    return line if len(line) <= longest else line[: longest - 1] + "…"


def signal_name(number: int) -> str:
    """SIGKILL for 9; the number itself if it has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def ranges(numbers: Iterable[int], *, between: str = ", ", longest: int = 16) -> str:
    """`0-3, 8` for 0, 1, 2, 3 and 8; after `longest` ranges, an ellipsis."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    shown = [f"{one}" if one == last else f"{one}-{last}" for one, last in runs[:longest]]
    return between.join([*shown, *(["…"] if len(runs) > longest else [])])


def last_lines(path: Path, count: int, *, longest: int = 400, window: int = 64 << 10) -> list[str]:
    """The last lines that are not blank, each made printable and cut at `longest` characters.

    Reads at most `window` bytes from the file's end. A file that can't be read has none.
    """
    try:
        with open_regular(path) as stream:
            stream.seek(max(0, stream.size() - window))
            data = b""
            while len(data) < window and (piece := stream.read(window - len(data))):
                data += piece
    except OSError:
        return []
    # A progress bar rewrites its line with carriage returns: what was seen last is what counts.
    lines = (line.rstrip("\r").rpartition("\r")[2] for line in _decode(data).split("\n"))
    return [one_line(line, longest) for line in lines if line.strip()][-count:]


def _decode(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


def _escape(match: re.Match[str]) -> str:
    number = ord(match[0])
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"
