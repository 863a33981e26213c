"""The event log of one rank: one JSON object a line, one writer a file.

The writer appends whole lines. The readers are made for what a kill, a full disk or a newer
clusterseg leaves behind: a torn last line, junk in the middle, unknown kinds and fields, a line
without end. They stream, so that thousands of ranks need no memory; `iter_batches` is the hot
path of `collect`.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import msgspec

from clusterseg.runs import lenient
from clusterseg.runs.records import Event

# Bytes read at a time, and the longest line that is taken for an event. Half a megabyte of
# decoded events stays in the processor's cache; measured, larger chunks are slower.
CHUNK = 1 << 18
LONGEST_LINE = CHUNK
_BETWEEN_TOUCHES = 1.0  # seconds
# Fields whose defaults would be lies; others may be null or of another type in foreign logs.
_NEEDED = frozenset(
    {"t", "step", "count", "images", "seconds", "epoch", "file", "name", "status", "reason"}
)


class ByteStream(Protocol):
    """What events can be read from beside a path: a binary file, a member of an archive."""

    def read(self, size: int, /) -> bytes: ...


@dataclass
class Tally:
    """What a reader could not use. `torn`: the last line has no end (the writer was killed)."""

    events: int = 0
    unreadable: int = 0
    unknown: int = 0
    torn: bool = False


class EventWriter:
    """Appends events to `path`: each one a whole line in one write, mode 0600.

    Non-finite numbers are written as null. An OSError (a full disk) reaches the caller; the
    line it cut is closed by the next write, so that it spoils no other.
    """

    def __init__(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(path, flags, 0o600)
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):  # never change the mode of a device
            os.close(self._descriptor)
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        os.fchmod(self._descriptor, 0o600)
        size = status.st_size
        self._torn = size > 0 and os.pread(self._descriptor, 1, size - 1) != b"\n"
        self._encoder = msgspec.json.Encoder()
        self._touched = float("-inf")

    def write(self, event: Event) -> None:
        """Appends one event."""
        line = self._encoder.encode(event) + b"\n"
        if self._torn:
            line = b"\n" + line
        self._torn = True
        written = os.write(self._descriptor, line)
        while written < len(line):  # a nearly full disk takes a part and then says why
            written += os.write(self._descriptor, line[written:])
        self._torn = False

    def touch(self) -> None:
        """Shows that the rank lives, where it has nothing to tell yet: changes the file's time, no
        more than once a second. Raises nothing."""
        now = time.monotonic()
        if now - self._touched >= _BETWEEN_TOUCHES:
            self._touched = now
            with suppress(OSError):
                os.utime(self._descriptor)

    def close(self) -> None:
        """Closes the file; a second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def iter_events(source: Path | ByteStream, tally: Tally | None = None) -> Iterator[Event]:
    """The events of one rank in the order they were written.

    `source` is a path or a binary stream. What can't be read is counted in `tally` and skipped.
    Raises OSError if the file can't be opened or read.
    """
    for batch in iter_batches(source, tally):
        yield from batch


def iter_batches(source: Path | ByteStream, tally: Tally | None = None) -> Iterator[list[Event]]:
    """As `iter_events`, in lists of some thousand events: the quickest way over a large log."""
    decoder = EventDecoder(tally)
    if isinstance(source, Path):
        with open_regular(source) as stream:
            yield from _batches(stream, decoder)
    else:
        yield from _batches(source, decoder)


def open_regular(path: Path) -> ByteFile:
    """Opens a plain file for reading; raises OSError for a pipe or device, which could hang."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is not a plain file")
    return ByteFile(descriptor)


class ByteFile:
    """An unbuffered file: reads are large already, or wanted fresh."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self, size: int, /) -> bytes:
        return os.read(self._descriptor, size)

    def seek(self, offset: int) -> None:
        os.lseek(self._descriptor, offset, os.SEEK_SET)

    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def touched(self) -> int:
        """The time of its last change, nanoseconds by the file system's clock."""
        return os.fstat(self._descriptor).st_mtime_ns

    def __enter__(self) -> ByteFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)


class EventTail:
    """Follows a growing event file: `read` gives what was added since the last call.

    A file that is not there (yet, or packed away meanwhile) has nothing new. `touched` is when the
    file was last changed, as of the last `read` (nanoseconds by the file system's clock): a writer
    that has nothing to tell, or of which a full disk takes nothing, still touches it.
    """

    def __init__(self, path: Path, *, keep: int | None = None) -> None:
        """With `keep`, the first read takes the first event and the last `keep` bytes only."""
        self.path = path
        self.tally = Tally()
        self.touched: int | None = None
        self._decoder = EventDecoder(self.tally)
        self._offset = 0
        self._keep = keep

    def read(self) -> list[Event]:
        """The whole lines added since the last call. Raises OSError."""
        events: list[Event] = []
        try:
            # A fresh open: network file systems show a writer's data at open.
            with open_regular(self.path) as stream:
                self.touched = stream.touched()
                if self._keep is not None:
                    events += self._skip(stream, self._keep)
                    self._keep = None
                stream.seek(self._offset)
                while chunk := stream.read(CHUNK):
                    self._offset += len(chunk)
                    events += self._decoder.feed(chunk)
        except FileNotFoundError:
            pass
        return events

    def _skip(self, stream: ByteFile, keep: int) -> list[Event]:
        """Goes to the first whole line among the last `keep` bytes; returns the first event."""
        size = stream.size()
        if size <= keep:
            return []
        head = stream.read(CHUNK)
        stream.seek(size - keep)
        line_end = stream.read(keep).find(b"\n")
        if line_end < 0:
            stream.seek(0)
            return self._skip(stream, 2 * keep)
        self._offset = size - keep + line_end + 1
        return EventDecoder().feed(head[: head.find(b"\n") + 1])


class EventDecoder:
    """Turns bytes as they come into events; holds back a line until its end is there."""

    def __init__(self, tally: Tally | None = None) -> None:
        self.tally = tally if tally is not None else Tally()
        self._carry = b""
        self._skipping = False  # inside a line longer than LONGEST_LINE
        self._decoder = msgspec.json.Decoder(Event)

    def feed(self, chunk: bytes) -> list[Event]:
        """The events whose lines end in `chunk`."""
        if self._skipping or len(self._carry) + len(chunk) > LONGEST_LINE:
            chunk = self._without_long_line(chunk)
        cut = chunk.rfind(b"\n") + 1
        if not cut:
            self._carry += chunk
            return []
        whole = self._carry + chunk[:cut]
        self._carry = chunk[cut:]
        return self._decode(whole)

    def finish(self) -> list[Event]:
        """The event of a last line that lacks only its end; notes whether that line was torn.

        A JSON object that was cut anywhere before its end is no JSON object.
        """
        self.tally.torn = bool(self._carry.strip()) or self._skipping
        try:
            events = [self._decode_one(self._carry)]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return []
        self._carry = b""
        self.tally.torn = False
        self.tally.events += 1
        return events

    def _without_long_line(self, chunk: bytes) -> bytes:
        """Drops the part of `chunk` that belongs to a line longer than LONGEST_LINE."""
        end = chunk.find(b"\n")
        if not self._skipping:
            if len(self._carry) + (end if end >= 0 else len(chunk)) <= LONGEST_LINE:
                return chunk
            self._carry = b""
            self._skipping = True
            self.tally.unreadable += 1
        if end < 0:
            return b""
        self._skipping = False
        return chunk[end + 1 :]

    def _decode(self, whole: bytes) -> list[Event]:
        try:
            events = self._decoder.decode_lines(whole)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            events = self._decode_one_by_one(whole)
        self.tally.events += len(events)
        return events

    def _decode_one_by_one(self, whole: bytes) -> list[Event]:
        events: list[Event] = []
        for line in whole.split(b"\n"):
            if not line.strip():
                continue
            try:
                events.append(self._decode_one(line))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                if _is_of_unknown_kind(line):
                    self.tally.unknown += 1
                else:
                    self.tally.unreadable += 1
        return events

    def _decode_one(self, line: bytes) -> Event:
        event: Event
        try:
            event = self._decoder.decode(line)
        except msgspec.DecodeError:
            event = lenient.decode(line, _kinds, needed=_NEEDED)
        return event


def _batches(stream: ByteStream, decoder: EventDecoder) -> Iterator[list[Event]]:
    while chunk := stream.read(CHUNK):
        if batch := decoder.feed(chunk):
            yield batch
    if batch := decoder.finish():
        yield batch


class _Kind(msgspec.Struct):
    kind: str


_kind_decoder = msgspec.json.Decoder(_Kind)
_kinds = {kind.__struct_config__.tag: kind for kind in Event.__args__}


def _is_of_unknown_kind(line: bytes) -> bool:
    """True for a record of a newer clusterseg: good JSON with a kind that is not known here."""
    try:
        return _kind_decoder.decode(line).kind not in _kinds
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
