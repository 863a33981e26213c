"""Reads all ranks of all attempts, on several processes where there is much to read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from clusterseg.collect.ranklog import RankLog, read_rank
from clusterseg.collect.windows import Windows
from clusterseg.runs.attempts import Attempt

if TYPE_CHECKING:
    from concurrent.futures import ProcessPoolExecutor

# Below this a second process costs more than it brings (a start is about 0.2 s of work).
WORTH_A_PROCESS = 32 << 20
# Bytes read as one piece of work: even work for all, and few results to merge.
PIECE = 32 << 20
# A login node is shared; more readers than these mostly wait for the file system.
MOST_PROCESSES = 8
# Packed logs are about this much smaller than the text that has to be read.
_PACKED_RATIO = 8


@dataclass(frozen=True)
class Piece:
    """A share of the reading: an attempt's archive (`ranks` None), or some of its rank files."""

    attempt: Attempt
    ranks: tuple[int, ...] | None
    limit: int | None
    bytes: int


@dataclass
class Reading:
    """What the ranks of one attempt, or some of them, wrote."""

    attempt: int
    windows: Windows = field(default_factory=Windows)
    ranks: list[RankLog] = field(default_factory=list)
    problem: str | None = None

    def merge(self, other: Reading) -> None:
        """Adds what other ranks of the same attempt wrote."""
        self.windows.merge(other.windows)
        self.ranks += other.ranks
        self.problem = self.problem or other.problem


def read_attempts(
    attempts: Sequence[Attempt], limits: Sequence[int | None], processes: int | None = None
) -> Iterator[Reading]:
    """One reading an attempt, in their order; steps beyond an attempt's limit don't count.

    `processes`: how many may read at once; None: as many as this process has processors, up to
    MOST_PROCESSES, if there is enough to read.
    """
    pieces = [
        piece
        for attempt, limit in zip(attempts, limits, strict=True)
        for piece in _pieces(attempt, limit)
    ]
    if processes is None:
        total = sum(piece.bytes for piece in pieces)
        processors = min(len(os.sched_getaffinity(0)), MOST_PROCESSES)
        processes = processors if total >= WORTH_A_PROCESS else 1
    processes = min(processes, len(pieces))
    with _mapped(pieces, processes) as readings:
        whole: Reading | None = None
        for reading in readings:
            if whole is not None and whole.attempt == reading.attempt:
                whole.merge(reading)
                continue
            if whole is not None:
                yield whole
            whole = reading
        if whole is not None:
            yield whole


def read_piece(piece: Piece) -> Reading:
    """Reads one piece; what can't be read is named in the result."""
    reading = Reading(piece.attempt.number)
    try:
        if piece.ranks is None:
            for rank, stream in piece.attempt.events():
                reading.ranks.append(read_rank(rank, stream, reading.windows, piece.limit))
        else:
            for rank in piece.ranks:
                reading.ranks.append(_read_file(piece, rank, reading.windows))
    except OSError as error:
        reading.problem = str(error)
    return reading


def _read_file(piece: Piece, rank: int, windows: Windows) -> RankLog:
    try:
        with piece.attempt.open(f"ranks/{rank:05d}.jsonl") as stream:
            return read_rank(rank, stream, windows, piece.limit)
    except OSError as error:
        return RankLog(rank, problem=error.strerror or str(error))


def _pieces(attempt: Attempt, limit: int | None) -> Iterator[Piece]:
    """At least one piece an attempt, so that each has its reading."""
    if attempt.packed:
        yield Piece(attempt, None, limit, _PACKED_RATIO * _size(attempt.paths.packed))
        return
    ranks: list[int] = []
    size = 0
    for rank in attempt.event_ranks():
        ranks.append(rank)
        size += _size(attempt.paths.events(rank))
        if size >= PIECE:
            yield Piece(attempt, tuple(ranks), limit, size)
            ranks, size = [], 0
    yield Piece(attempt, tuple(ranks), limit, size)


def _size(path: Path) -> int:
    """Bytes, for sharing out work; 0 for a file that went away."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


@contextmanager
def _mapped(pieces: Sequence[Piece], processes: int) -> Iterator[Iterator[Reading]]:
    pool = _pool(processes) if processes > 1 else None
    if pool is None:
        yield map(read_piece, pieces)
        return
    with pool:
        try:
            yield pool.map(read_piece, pieces)
        finally:
            pool.shutdown(cancel_futures=True)


def _pool(processes: int) -> ProcessPoolExecutor | None:
    """Processes to read with; None where the system gives none (no semaphores in /dev/shm)."""
    # Loaded only here: 60 ms that a small run does not need. Fresh interpreters rather than
    # forks: the caller may have threads (a live view).
    from concurrent.futures import ProcessPoolExecutor  # noqa: PLC0415
    from multiprocessing import get_context  # noqa: PLC0415

    try:
        return ProcessPoolExecutor(
            processes, mp_context=get_context("spawn"), initializer=_live_with_the_parent
        )
    except (ImportError, NotImplementedError, OSError):
        return None


def _live_with_the_parent() -> None:
    """In a reader: Ctrl-C is the parent's matter, and nobody waits for work of a dead parent."""
    import signal  # noqa: PLC0415
    import threading  # noqa: PLC0415
    from multiprocessing import connection, parent_process  # noqa: PLC0415

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    if parent is not None:

        def leave_with_it(sentinel: int = parent.sentinel) -> None:
            connection.wait([sentinel])
            os._exit(1)

        threading.Thread(target=leave_with_it, daemon=True).start()
