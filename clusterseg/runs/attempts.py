"""The attempts of a run, as folders or packed, for everyone who reads them.

A finished attempt of many ranks is thousands of small files, which shared file systems dislike:
`pack_attempt` puts them into one archive. Readers see no difference. Whatever is damaged is
named in `Attempt.problems` or raised as OSError, never more.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import msgspec

from clusterseg.runs import lenient
from clusterseg.runs.eventlog import ByteStream, open_regular
from clusterseg.runs.paths import LAUNCHER, AttemptPaths, RunPaths
from clusterseg.runs.records import Claim, End

# A claim lists every checkpoint that counts: some kilobytes. More than this is no record.
LARGEST_RECORD = 16 << 20

# What a salvaged claim or end must have: without its time it says nothing.
_NEEDED = frozenset({"t"})

_NUMBER = re.compile(r"(\d{3,9})")
_PACKED = re.compile(r"(\d{3,9})\.tar\.zst")
_RANK_FILE = re.compile(r"ranks/(\d{5,9})\.(jsonl|log)")

Record = TypeVar("Record", Claim, End)


@dataclass(frozen=True)
class Attempt:
    """One attempt. `claim` is None if it can't be read, `end` None if there is none (or as bad)."""

    paths: AttemptPaths
    packed: bool
    claim: Claim | None
    end: End | None
    problems: tuple[str, ...] = ()

    @property
    def number(self) -> int:
        return self.paths.number

    def events(self) -> Iterator[tuple[int, ByteStream]]:
        """Each rank's event log, by rank; a stream is good until the next one is asked for.

        Raises OSError for a damaged archive; a file that can't be opened is a stream that
        raises when it is read, so that the other ranks are still reached.
        """
        return self._rank_files("jsonl")

    def logs(self) -> Iterator[tuple[int, ByteStream]]:
        """Each rank's stdout and stderr, in the same way."""
        return self._rank_files("log")

    def names(self) -> list[str]:
        """The attempt's files, relative to its folder: `claim.json`, `ranks/00000.log`, …"""
        if self.packed:
            return [name for name, _ in _archive().members(self.paths.packed)]
        return folder_names(self.paths.folder)

    def log_ranks(self) -> list[int]:
        """The ranks that left a log."""
        return self._ranks_with("log")

    def event_ranks(self) -> list[int]:
        """The ranks that left an event log."""
        return self._ranks_with("jsonl")

    @contextmanager
    def open(self, name: str) -> Iterator[ByteStream]:
        """Opens one file by its name in the attempt; FileNotFoundError if it isn't there."""
        if self.packed:
            for member, stream in _archive().members(self.paths.packed):
                if member == name:
                    yield stream
                    return
            raise FileNotFoundError(f"{self.paths.packed} holds no {name}")
        with open_regular(self.paths.folder / name) as stream:
            yield stream

    def _ranks_with(self, suffix: str) -> list[int]:
        found = (_RANK_FILE.fullmatch(name) for name in self.names())
        return sorted(int(match[1]) for match in found if match and match[2] == suffix)

    def _rank_files(self, suffix: str) -> Iterator[tuple[int, ByteStream]]:
        if self.packed:
            for name, stream in _archive().members(self.paths.packed):
                match = _RANK_FILE.fullmatch(name)
                if match and match[2] == suffix:
                    yield int(match[1]), stream
            return
        for name in folder_names(self.paths.folder):
            match = _RANK_FILE.fullmatch(name)
            if match is None or match[2] != suffix:
                continue
            try:
                opened = open_regular(self.paths.folder / name)
            except OSError as error:
                yield int(match[1]), _Unreadable(error)
                continue
            with opened:
                yield int(match[1]), opened


def iter_attempts(run: RunPaths, *, salvage: bool = False) -> Iterator[Attempt]:
    """The attempts of a run by number; junk between them is passed over.

    With `salvage` claims and ends that other programs wrote are read leniently: for reports,
    never to decide by.
    """
    for number in attempt_numbers(run):
        attempt = read_attempt(run.attempt(number), salvage=salvage)
        if attempt is not None:
            yield attempt


def last_attempt(run: RunPaths) -> Attempt | None:
    """The attempt with the highest number, without reading the others."""
    for number in reversed(attempt_numbers(run)):
        attempt = read_attempt(run.attempt(number))
        if attempt is not None:
            return attempt
    return None


def pack_attempt(paths: AttemptPaths) -> Path:
    """Packs an ended attempt into `attempts/NNN.tar.zst`, then removes its folder.

    Killed at any moment it leaves a readable attempt; called again, it finishes. Raises OSError,
    with the folder untouched, if the attempt has no end record or the archive turns out bad.
    """
    packed: Path = _archive().pack(paths)
    return packed


def attempt_numbers(run: RunPaths) -> list[int]:
    """The numbers that a folder or an archive stands for, in order."""
    try:
        names = os.listdir(run.attempts)  # noqa: PTH208 (names only, many of them)
    except (FileNotFoundError, NotADirectoryError):
        return []
    matches = (_NUMBER.fullmatch(name) or _PACKED.fullmatch(name) for name in names)
    return sorted({int(match[1]) for match in matches if match})


def read_attempt(paths: AttemptPaths, *, salvage: bool = False) -> Attempt | None:
    """One attempt; None for a folder that nobody has claimed (a claim cut short)."""
    if paths.packed.exists():  # complete since it has its name; the folder may be half removed
        return _read_packed(paths, salvage)
    problems: list[str] = []
    claim = _read_record(paths.claim, Claim, problems, salvage)
    if claim is None and not problems:
        if not paths.ranks.is_dir():
            return None
        problems.append(f"{paths.claim} is missing")
    end = _read_record(paths.end, End, problems, salvage)
    return Attempt(paths, False, claim, end, tuple(problems))


def folder_names(folder: Path) -> list[str]:
    """The plain files of an attempt's folder; small records first, then the ranks in order, and
    what the launcher wrote of them."""
    own = sorted(_plain_files(folder), key=lambda name: (not name.endswith(".json"), name))
    own += [f"ranks/{name}" for name in sorted(_plain_files(folder / "ranks"))]
    below = sorted(Path(where) for where, _, _ in os.walk(folder / LAUNCHER))
    return own + [
        str(where.relative_to(folder) / name)
        for where in below
        for name in sorted(_plain_files(where))
    ]


def _plain_files(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _read_packed(paths: AttemptPaths, salvage: bool) -> Attempt:
    problems: list[str] = []
    claim: Claim | None = None
    end: End | None = None
    try:
        for name, stream in _archive().members(paths.packed):
            # The records stand first, so that this reads the archive's first bytes only; where
            # a person packed the folder, they may stand anywhere.
            if name == "claim.json":
                data = stream.read(LARGEST_RECORD)
                claim = _decode(data, Claim, str(paths.packed), problems, salvage)
            elif name == "end.json":
                data = stream.read(LARGEST_RECORD)
                end = _decode(data, End, str(paths.packed), problems, salvage)
            if claim and end:
                break
    except OSError as error:
        problems.append(str(error))
    return Attempt(paths, True, claim, end, tuple(problems))


def _read_record(
    path: Path, kind: type[Record], problems: list[str], salvage: bool
) -> Record | None:
    try:
        with open_regular(path) as stream:
            return _decode(stream.read(LARGEST_RECORD), kind, str(path), problems, salvage)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        problems.append(f"{path}: {error.strerror or error}")
        return None


def _decode(
    data: bytes, kind: type[Record], where: str, problems: list[str], salvage: bool
) -> Record | None:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if salvage:
            with suppress(msgspec.DecodeError):
                return lenient.decode(data, kind, needed=_NEEDED)
        problems.append(f"{where}: {kind.__name__.lower()} is damaged ({error})")
        return None


def _archive() -> ModuleType:
    """`clusterseg.runs.archive`: most runs have no archive, and zstandard and tarfile cost time."""
    from clusterseg.runs import archive  # noqa: PLC0415

    return archive


class _Unreadable:
    """Stands for a file that could not be opened: says so when it is read."""

    def __init__(self, error: OSError) -> None:
        self._error = error

    def read(self, size: int, /) -> bytes:
        raise self._error
