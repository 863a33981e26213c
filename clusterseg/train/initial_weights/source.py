"""What a file of weights is to the rest, whatever its format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.spec.errors import clip
from clusterseg.train.initial_weights.match import Item

MAX_TENSORS = 100_000


@dataclass(frozen=True)
class Source:
    """A file that is open: what it is (`kind`), its tensors, and how to read one by its name.

    `read` gives the numbers as they are stored, in the shape that the item says.
    """

    kind: str
    items: tuple[Item, ...]
    read: Callable[[str], NDArray[Any]]


def bad_weights(path: Path, what: str, help: str | None = None) -> ClustersegError:
    """What is wrong with a file of weights; `what` goes on after its name."""
    return ClustersegError(
        f"{path} {what}", code="initial-weights", help=help, exit_code=ExitCode.FAILED
    )


def first_line(error: BaseException) -> str:
    """An error of a library, short enough for a message; some quote the file in it."""
    lines = str(error).splitlines() or [""]
    return clip(lines[0], 200) or type(error).__name__
