"""Problems found in a job.yaml or a `--set` argument: all of them at once, each with its place."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from clusterseg.errors import ClustersegError, ExitCode

# libyaml breaks lines at these (YAML 1.1, section 4.2), so that its line numbers agree with ours.
_LINE_BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")
_WIDEST = 110  # columns of a source line that are shown around a caret


@dataclass(frozen=True)
class Source:
    """A text that was read: a file (`name` as the user wrote it) or one `--set` argument.

    `first_line` is the number of its first line: a file's is 1, the third `--set` is line 3 of
    all `--set` arguments. `argument` is true for the latter.
    """

    name: str
    text: str
    first_line: int = 1
    argument: bool = False

    @cached_property
    def lines(self) -> list[str]:
        return _LINE_BREAK.split(self.text)

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *(found.end() for found in _LINE_BREAK.finditer(self.text))]

    def place(self, start: int, end: int) -> Place:
        """The place of the characters `start` to `end` (not included); cut at the line's end."""
        line = bisect_right(self._starts, start) - 1
        column = start - self._starts[line]
        room = len(self.lines[line]) - column
        return Place(self, line, column, max(1, min(end - start, room)))


@dataclass(frozen=True)
class Place:
    """Where in a source: line and column count from 0, `length` is in characters, at least 1."""

    source: Source
    line: int
    column: int
    length: int = 1

    def __str__(self) -> str:
        """`job.yaml:3:3`, counted from 1; `--set:2:5` is column 5 of the second argument."""
        return f"{visible(self.source.name)}:{self.line + self.source.first_line}:{self.column + 1}"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. `note` stands beside the caret, `help` says what to do.

    `place` is None where there is no text to point at (a missing file). `key` is the dotted key
    that the problem is about: empty for the job as a whole, None where no key is to blame.
    """

    code: str
    message: str
    place: Place | None = None
    note: str = ""
    help: str = ""
    source_name: str = ""
    key: str | None = None

    def record(self) -> dict[str, object]:
        """As plain values for `--json`; line and column count from 1."""
        record: dict[str, object] = {"code": self.code, "message": self.message}
        if self.place is not None:
            place = self.place
            record |= {
                "file": place.source.name,
                "line": place.line + place.source.first_line,
                "column": place.column + 1,
                "length": place.length,
            }
            if place.source.argument:
                record["argument"] = place.source.text
        elif self.source_name:
            record["file"] = self.source_name
        optional = {"key": self.key, "note": self.note, "help": self.help}
        return record | {name: text for name, text in optional.items() if text}

    def render(self) -> str:
        """As text: message, place, source line, caret, help; ends without a newline."""
        lines = [f"error[{self.code}]: {visible(self.message)}"]
        if self.place is not None:
            lines += _excerpt(self.place, visible(self.note))
        elif self.source_name:
            lines.append(f"  --> {visible(self.source_name)}")
        if self.help:
            lines.append(f"help: {visible(self.help)}")
        return "\n".join(lines)


class SpecError(ClustersegError):
    """Everything that is wrong with one job description. `problems` is never empty.

    `more` says that there were so many problems that the rest was not looked at.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        *,
        more: bool = False,
        exit_code: int = ExitCode.USAGE,
    ) -> None:
        first = problems[0]
        super().__init__(
            first.message, code=first.code, help=first.help or None, exit_code=exit_code
        )
        self.problems = tuple(problems)
        self.more = more

    def __str__(self) -> str:
        return self.render()

    def records(self) -> list[dict[str, object]]:
        return [problem.record() for problem in self.problems]

    def render(self) -> str:
        texts = [problem.render() for problem in self.problems]
        if self.more:
            texts.append("... the rest was not looked at")
        return "\n\n".join(texts)


def visible(text: str) -> str:
    """`text` in one line, with control characters and lone surrogates written as escapes."""
    return "".join(
        character
        if character.isprintable() or character == " "
        else character.encode("unicode_escape", "backslashreplace").decode("ascii")
        for character in text
    )


def clip(text: str, width: int = 60) -> str:
    """`text` made visible and cut to `width` characters, for use within a message."""
    text = visible(text[: 4 * width])
    return text if len(text) <= width else text[: width - 3] + "..."


def nearest(word: str, known: Sequence[str]) -> str | None:
    """The known word that was probably meant, or None."""
    if len(word) > 100:
        return None  # difflib's time grows with the square of the length
    from difflib import get_close_matches  # noqa: PLC0415  # 7 ms that only a mistake costs

    folded = {name.lower().replace("_", "").replace("-", ""): name for name in known}
    same = folded.get(word.lower().replace("_", "").replace("-", ""))
    if same is not None:
        return same
    near = get_close_matches(word, known, n=1, cutoff=0.6)
    return near[0] if near else None


def _excerpt(place: Place, note: str) -> list[str]:
    """The source line with the caret below it, as rustc and ruff draw it."""
    line = place.source.lines[place.line]
    column, length = place.column, place.length
    cut = 0
    if len(line) > _WIDEST and column + length > _WIDEST - 10:
        cut = max(0, column - 20)
    shown = line[cut : cut + _WIDEST]
    column -= cut
    length = max(1, min(length, len(shown) - column))
    # Each character becomes one or more cells; the caret line is padded by the same cells.
    cells = [visible(character) if character != "\t" else " " for character in shown]
    widths = [sum(_cells(character) for character in cell) for cell in cells]
    number = str(place.line + place.source.first_line)
    gutter = " " * len(number)
    pad = " " * sum(widths[:column])
    caret = "^" * max(1, sum(widths[column : column + length]))
    return [
        f"  --> {place}",
        f" {number} | {''.join(cells)}",
        f" {gutter} | {pad}{caret}{' ' + note if note else ''}",
    ]


def _cells(character: str) -> int:
    """Columns that a character takes in a terminal."""
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
