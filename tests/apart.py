"""Programs that have an environment of their own (tools/apart.sh), for tests that run them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
_ENVIRON = dict(os.environ)  # the user's cache: during the tests the variable names another


def command(tool: str, script: str, what: str) -> list[Path | str]:
    """The line that runs `script` (from the top) in the environment that tools/`tool` made, whose
    packages it gets as its first argument; skips the test where `what` is not there."""
    asked = subprocess.run(
        [TOP / "tools" / tool, "path"], capture_output=True, text=True, check=False, env=_ENVIRON
    )
    folder = Path(asked.stdout.strip())
    if asked.returncode:
        pytest.skip(f"{what} are not there: {folder}")
    return [folder / "python", "-S", "-E", TOP / script, folder / "packages"]
