"""What programs say is asked once a day, and again when anything about them has changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clusterseg.cluster.sayings import DAY, remembered


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "mpirun"
    path.write_text("one")
    return path


class Asking:
    """Asks with a cache of its own; `asked` counts."""

    def __init__(self, folder: Path) -> None:
        self.environ = {"XDG_CACHE_HOME": str(folder / "cache"), "PATH": "/bin"}
        self.asked = 0
        self.now = 1e9
        self.says = "v1"

    def __call__(self, program: Path, *arguments: str, **variables: str) -> str:
        def ask() -> str:
            self.asked += 1
            return self.says

        environ = {**self.environ, **variables}
        return remembered(program, arguments, environ, ask, clock=lambda: self.now)


def test_an_answer_is_good_for_a_day(program: Path, tmp_path: Path) -> None:
    ask = Asking(tmp_path)
    assert [ask(program, "--version") for _ in range(3)] == ["v1"] * 3
    assert ask.asked == 1
    ask.says = "v2"
    ask.now += DAY - 1
    assert ask(program, "--version") == "v1"
    ask.now += 2
    assert ask(program, "--version") == "v2"
    ask.now -= 2 * DAY  # the clock was set back
    ask.says = "v3"
    assert ask(program, "--version") == "v3"


def test_what_changes_the_answer_is_asked_again(program: Path, tmp_path: Path) -> None:
    ask = Asking(tmp_path)
    ask(program, "--version")
    ask(program, "--mpi=list")
    ask(program, "--version", LD_LIBRARY_PATH="/lib")
    ask(program, "--version", OPAL_PREFIX="/opt")
    link = tmp_path / "link"
    link.symlink_to(program)
    ask(link, "--version")
    assert ask.asked == 5
    ask(program, "--version", EDITOR="vi")
    assert ask.asked == 5
    program.write_text("another")
    ask(program, "--version")
    other = tmp_path / "other"
    other.write_text("another")
    os.utime(other, ns=(0, program.stat().st_mtime_ns))
    other.rename(program)  # another file of the same size and age
    ask(program, "--version")
    assert ask.asked == 7


def test_silence_and_failure_are_not_remembered(program: Path, tmp_path: Path) -> None:
    ask = Asking(tmp_path)
    ask.says = ""
    assert ask(program) == ""
    ask.says = "v1"
    assert ask(program) == "v1"

    def fail() -> str:
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        remembered(program, ["--other"], ask.environ, fail)
    assert ask(program, "--other") == "v1"


def test_without_a_place_for_it_everything_is_asked(program: Path, tmp_path: Path) -> None:
    ask = Asking(tmp_path)
    ask.environ = {}
    assert [ask(program), ask(program)] == ["v1", "v1"]
    assert ask.asked == 2


def test_a_damaged_cache_is_none(program: Path, tmp_path: Path) -> None:
    ask = Asking(tmp_path)
    ask(program)
    (cache,) = (tmp_path / "cache").rglob("sayings.json")
    cache.write_text("{")
    assert ask(program) == "v1"
    assert ask.asked == 2
