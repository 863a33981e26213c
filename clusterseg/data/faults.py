"""What is wrong with the files that a data set is made of, seen while it is opened.

Whoever trains or counts wants the first fault raised (`STRICT`); whoever looks into a set wants all
of them, and what is left of the set (`Gathered`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from clusterseg.data.dataset import Sample
from clusterseg.errors import ClustersegError

Read = TypeVar("Read")

NOTHING: tuple[Sample, ...] = ()
"""What is left of a part that can't be read."""

NO_MASKS = "no-masks"
"""Code of the error of a part whose pictures have no mask at all."""


class Faults:
    """Raises the first."""

    def files(self, error: ClustersegError, files: Sequence[tuple[Path, str]]) -> None:
        """`error` says what is wrong with all `files`, each with what there is to say of it. If
        this returns, the set goes on without them."""
        raise error

    def part(self, read: Callable[[], Read], without: Read) -> Read:
        """What `read` gives; `without` it where it raises what is wrong with a whole part."""
        return read()


STRICT = Faults()


@dataclass(frozen=True)
class FileFault:
    """`text` is what there is to say of this file besides what `code` means."""

    code: str
    path: Path
    text: str


class Gathered(Faults):
    """Keeps them: `lost`, the files that the set goes on without; `helps`, what to do about them,
    a code; `errors`, what was wrong with whole parts, of those whose code is in `of_a_part`: other
    errors are mistakes of whoever asked, and go on.
    """

    def __init__(self, of_a_part: frozenset[str]) -> None:
        self._of_a_part = of_a_part
        self.lost: list[FileFault] = []
        self.errors: list[ClustersegError] = []
        self._helps: dict[str, str] = {}

    @property
    def helps(self) -> Mapping[str, str]:
        return self._helps

    def files(self, error: ClustersegError, files: Sequence[tuple[Path, str]]) -> None:
        self.lost += [FileFault(error.code, path, text) for path, text in files]
        if error.help:
            self._helps.setdefault(error.code, error.help)

    def part(self, read: Callable[[], Read], without: Read) -> Read:
        try:
            return read()
        except ClustersegError as error:
            if error.code not in self._of_a_part:
                raise
            self.errors.append(error)
            return without
