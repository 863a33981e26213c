"""Failures of an attempt as the supervisor can tell them apart, and as a person reads them."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto

from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.runs.checkpoint_file import CheckpointError
from clusterseg.runs.space import FULL


class TrainingError(ClustersegError):
    """Ends the attempt. The message begins with the cause: `disk full:`, `nan:`, `save:`, …

    `agreed`: all ranks raise it at the same place, so that they can end together in order.
    """

    def __init__(self, message: str, *, code: str, agreed: bool, help: str | None = None) -> None:
        super().__init__(message, code=code, help=help, exit_code=ExitCode.FAILED)
        self.agreed = agreed


def diverged(problem: str) -> TrainingError:
    """What ends an attempt whose ranks do not hold the same weights."""
    return TrainingError(
        f"diverged: {problem}",
        code="diverged",
        agreed=True,
        help="the ranks' hardware or libraries compute differently; such weights are not saved",
    )


class FailureKind(Enum):
    """Why a save failed. OTHER: a mistake, or no memory."""

    DISK_FULL = auto()
    IO = auto()
    NOT_FINITE = auto()
    SUPERSEDED = auto()
    OTHER = auto()


@dataclass(frozen=True)
class SaveFailure:
    """A save that failed; `message` begins with its cause where that has a name."""

    kind: FailureKind
    message: str


def save_failure(error: BaseException, step: int) -> SaveFailure:
    """What kept the state after `step` from being saved."""
    if isinstance(error, OSError):
        kind = FailureKind.DISK_FULL if error.errno in FULL else FailureKind.IO
        return SaveFailure(kind, describe_os_error(error, f"saving step {step}"))
    kinds = {"not-finite": FailureKind.NOT_FINITE, "superseded": FailureKind.SUPERSEDED}
    code = error.code if isinstance(error, CheckpointError) else ""
    return SaveFailure(kinds.get(code, FailureKind.OTHER), one_line(error))


def say(text: str) -> None:
    """A line for the rank's log, which may stand on the very disk that is full."""
    with suppress(OSError):
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def warn(text: str) -> None:
    """As `say`, of what a person should look after."""
    say(f"warning: {text}")


def describe_os_error(error: OSError, doing: str) -> str:
    """`disk full: …` where that is it, else `i/o error: …`; one line."""
    kind = "disk full" if error.errno in FULL else "i/o error"
    where = f": {error.filename}" if error.filename else ""
    return f"{kind}: {doing}: {error.strerror or error}{where}"


def one_line(error: BaseException) -> str:
    """An error for the `error` field of an event: its first line, capped."""
    if isinstance(error, OSError) and error.errno in FULL:
        return describe_os_error(error, "writing")
    if isinstance(error, ClustersegError):
        text = error.message
    elif isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        text = f"out of memory: {_first_line(error)}"
    else:
        text = f"{type(error).__name__}: {_first_line(error)}"
    return text[:2000]


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), "")
