"""Commands as users type them, in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from clusterseg.cli.main import main


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.out)


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Runs `clusterseg ARGUMENTS…` and says how it ended and what it printed."""

    def run(*arguments: object) -> Done:
        capfd.readouterr()
        code: object = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as exit:
            code = exit.code
        sys.stdout.flush()
        out, err = capfd.readouterr()
        return Done(int(code or 0), out, err)  # type: ignore[call-overload]

    return run
