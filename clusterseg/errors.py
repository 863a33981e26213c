"""Errors meant for the person who can act on them. Imported by every room."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of every command (docs/cli.md)."""

    OK = 0
    FAILED = 1
    USAGE = 2
    CLUSTER = 3
    STOPPED = 75
    INTERRUPTED = 130


class ClustersegError(Exception):
    """A mistake or a state of the world that a person can mend; printed without a traceback.

    `code` is a short kebab-case name (`unknown-key`), `message` says what is wrong and where,
    `help` what to do. `exit_code` is what the process ends with.

    `is_lasting`: whoever tries the same again will surely fail again, since it follows from what
    was asked for and from what files hold; where a file system, a host or a cluster may have had
    a bad moment it is False. `is_of_all`: it is no matter of one task of a fan-out, but of what all
    of them share.
    """

    is_lasting = False
    is_of_all = False

    def __init__(
        self,
        message: str,
        *,
        code: str = "error",
        help: str | None = None,
        exit_code: int = ExitCode.USAGE,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.help = help
        self.exit_code = int(exit_code)

    def records(self) -> list[dict[str, object]]:
        """The error as plain values, for `--json`."""
        record: dict[str, object] = {"code": self.code, "message": self.message}
        if self.help:
            record["help"] = self.help
        return [record]

    def render(self) -> str:
        """The error as text for a terminal or a log; no markup, ends without a newline."""
        text = f"error[{self.code}]: {self.message}"
        return f"{text}\nhelp: {self.help}" if self.help else text


@contextmanager
def lasting() -> Iterator[None]:
    """Marks the ClustersegErrors raised within as lasting. Nothing in it may read a file."""
    try:
        yield
    except ClustersegError as error:
        error.is_lasting = True
        raise
