"""`clusterseg … | head`: that nobody reads on is no error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.camvid_tree import write_tree

CLUSTERSEG = str(Path(sys.executable).with_name("clusterseg"))


def unread(*arguments: object) -> tuple[int, str]:
    """(exit code, what it said on stderr) of a command whose output nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [CLUSTERSEG, *map(str, arguments)],
            stdout=writer,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": ""},
            text=True,
            check=False,
        )
    finally:
        os.close(writer)
    return done.returncode, done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["schema"]])
def test_the_exit_code_is_0(arguments: list[str]) -> None:
    assert unread(*arguments) == (0, "")


def test_what_was_found_in_the_data_keeps_its_exit_code(tmp_path: Path) -> None:
    """Also where all of the output fits into a buffer, and is written at the very end."""
    tree = write_tree(tmp_path / "set")
    arguments = ("data", "check", tree, "--format", "camvid")
    assert unread(*arguments) == (0, "")
    (tree / "val" / "0.png").write_bytes(b"")
    assert unread(*arguments) == (1, "")
