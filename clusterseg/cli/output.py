"""Safe and plain printing: data to stdout, messages to stderr, nothing that drives a terminal.

Names, host names and log lines come from outside. What goes through here can't move the
cursor, hide text or be taken for markup.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TextIO

import msgspec
import typer

from clusterseg.runs.text import printable

# The parameters that several commands share.
RunArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="A run id, a unique prefix of one, or a run directory.",
        show_default=False,
    ),
]
RunsDir = Annotated[
    Path | None,
    typer.Option(
        "--runs-dir",
        metavar="DIR",
        help="Where runs are kept; else $CLUSTERSEG_RUNS, else ./runs.",
        show_default=False,
    ),
]
HostsFile = Annotated[
    Path | None,
    typer.Option(
        "--hosts",
        metavar="FILE",
        help="Take resources.hosts from a host file of Open MPI or Hydra, or a machinefile.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

LONGEST_LINE = 1 << 14  # characters of a log line that are shown

# Colours and bold (SGR): only for show, and noise once they are escaped.
_STYLE = re.compile(r"\x1b\[[0-9;:]*m")
_COLOURS = {
    "running": "36",
    "done": "32",
    "stopped": "33",
    "failed": "31",
    "cancelled": "33",
    "queued": "34",
}


def with_hosts(overrides: Sequence[str] | None, hosts: Path | None) -> list[str]:
    """The `--set` arguments with what the host file says; they have the last word over it."""
    if hosts is None:
        return list(overrides or ())
    from clusterseg.plan.host_list import hosts_override
    from clusterseg.spec.reader import text_of

    return [hosts_override(text_of(hosts), str(hosts)), *(overrides or ())]


def out(text: str = "") -> None:
    """Prints a line of data. What it holds from outside must have gone through `safe`."""
    sys.stdout.write(text + "\n")


def note(text: str) -> None:
    """Prints a message for the person, to stderr."""
    sys.stdout.flush()
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def out_json(value: object) -> None:
    """Prints a value as JSON; readable where a person looks at it."""
    data = msgspec.json.encode(value)
    if sys.stdout.isatty():
        data = msgspec.json.format(data, indent=2)
    out(data.decode())


def safe(text: str) -> str:
    """One line from outside: tabs stay, other control characters are written as escapes."""
    if text.isprintable():
        return text
    return printable(_STYLE.sub("", text)).replace("\n", "\\n")


def safe_lines(data: bytes) -> list[str]:
    """Whole lines of a log, each safe and capped. A carriage return ends a line, too."""
    lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").decode(errors="backslashreplace")
    return [_capped(line) for line in lines.removesuffix("\n").split("\n")]


def is_colourful(stream: TextIO) -> bool:
    """Whether colours are welcome: a terminal, and no NO_COLOR (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def state_text(state: str) -> str:
    """A state's name, coloured on a terminal."""
    colour = _COLOURS.get(state)
    if colour is None or not is_colourful(sys.stdout):
        return state
    return f"\x1b[{colour}m{state}\x1b[0m"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned columns as lines; cells are made safe, a last cell may be of any length."""
    cells = [list(header), *([safe(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = []
    for number, row in enumerate(cells):
        padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        if number:  # coloured after padding: escapes have no width
            padded = [
                state_text(cell.rstrip()) + " " * (len(cell) - len(cell.rstrip()))
                for cell in padded
            ]
        lines.append("  ".join(padded).rstrip())
    return lines


def duration(seconds: float | None) -> str:
    """`95` -> `1m35s`; None -> `-`."""
    if seconds is None:
        return "-"
    whole = max(0, round(seconds))
    if whole >= 86400:
        return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"
    if whole >= 3600:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    if whole >= 60:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole}s"


def clock(t: float) -> str:
    """Unix seconds as local date and time."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(t))
    except (OverflowError, ValueError, OSError):  # a damaged record
        return "?"


def number(value: float | None, digits: int = 4) -> str:
    """A number for people; None -> `-`."""
    return "-" if value is None else f"{value:.{digits}g}"


def _capped(line: str) -> str:
    if len(line) <= LONGEST_LINE:
        return safe(line)
    return safe(line[:LONGEST_LINE]) + f" … ({len(line) - LONGEST_LINE} more characters)"
