"""Text from outside: no control reaches a terminal, nothing is read without a cap."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterseg.runs.text import last_lines, one_line, printable, ranges


@given(st.text())
def test_no_control_survives(text: str) -> None:
    assert not {c for c in printable(text) if unicodedata.category(c) == "Cc"} - {"\t", "\n"}
    line = one_line(text, 20)
    assert "\n" not in line
    assert len(line) <= 20


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ü 文\t", "plain ü 文\t"),
        ("\x1b[2J\x07", "\\x1b[2J\\x07"),
        ("\x9b2J", "\\x9b2J"),
        ("a\u202eb\u2028", "a\\u202eb\\u2028"),
        ("[/nope]", "[/nope]"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"one\n\ntwo\r\n 10%\r 20%\nlast \xff\x1b")
    assert last_lines(log, 3) == ["two", " 20%", "last \\xff\\x1b"]
    assert last_lines(log, 1) == ["last \\xff\\x1b"]
    assert last_lines(tmp_path / "none", 3) == []


def test_a_line_without_end_is_capped(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x" * 300_000)
    (line,) = last_lines(log, 5, longest=100)
    assert len(line) == 100


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ([], ""),
        ([5], "5"),
        ([3, 0, 1, 2, 8], "0-3,8"),
        ([1, 3, 5], "1,3,5"),
        ([1, 3, 5, 7], "1,3,5,…"),
    ],
)
def test_numbers_are_written_as_ranges(numbers: list[int], text: str) -> None:
    assert ranges(numbers, between=",", longest=3) == text
