"""Durable, private writes: what every other module of this room writes through.

A kill at any byte leaves the old state or the new one, never half of it: data goes to a file
of its own under a temporary name, is fsynced, gets its real name by `link` or `rename`, and
then the folder is fsynced. Folders are 0700 and files 0600 whatever the umask says. Nothing is
removed but the temporary file that the call itself made.

These rules hold on NFS too: `link` is the only exclusive creation to trust there, and its
answer can be lost, so that success is told by the link count. After a failed fsync the file is
thrown away, because a second fsync of it would report success without the data.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FILE_MODE = 0o600
FOLDER_MODE = 0o700
TEMPORARY_PREFIX = ".tmp-"
_CHUNK = 1 << 20  # bytes compared at a time


def commit_new(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Writes a file that must not exist yet, durable when this returns.

    `data` may be given in pieces, for files too large to hold twice. Raises FileExistsError if
    `path` exists with other content (the same content means: done before), OSError if it cannot
    be written; `path` then is as it was.
    """
    with _temporary(path) as temporary:
        _write_durably(temporary, data)
        _link(temporary, path)
    sync_folder(path.parent)


def replace(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Writes `path` anew, durable when this returns; a reader sees the old file or the new one."""
    with _temporary(path) as temporary:
        _write_durably(temporary, data)
        temporary.rename(path)
    sync_folder(path.parent)


def make_private_dir(path: Path) -> None:
    """Makes `path` and its missing parents with mode 0700, durably; one that exists is left."""
    if path.is_dir():
        return
    if path.parent != path:
        make_private_dir(path.parent)
    try:
        path.mkdir(mode=FOLDER_MODE)
    except FileExistsError:
        if path.is_dir():  # somebody else was quicker
            return
        raise
    path.chmod(FOLDER_MODE)  # the umask may have taken bits from mkdir's mode
    sync_folder(path.parent)


def make_empty(path: Path) -> None:
    """Makes an empty private file, or leaves the one that exists untouched."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
    try:
        os.fchmod(descriptor, FILE_MODE)
    finally:
        os.close(descriptor)
    sync_folder(path.parent)


def overwrite(path: Path, data: bytes) -> None:
    """Overwrites an existing file in its place and fsyncs it; not atomic, for tiny files.

    In place, so that a reader on another host whose look-up cache still holds the old inode
    sees it on its next open. Its readers must bear an empty or a torn file.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.ftruncate(descriptor, 0)
        _write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_capped(path: Path, limit: int) -> bytes:
    """At most `limit` bytes of a file, by a fresh open (never cached metadata).

    Raises FileNotFoundError, or another OSError.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        pieces = []
        while limit > 0 and (piece := os.read(descriptor, limit)):
            pieces.append(piece)
            limit -= len(piece)
        return b"".join(pieces)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Makes the names in a folder durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """A name beside `path` that nobody else uses; what lies there at the end is removed."""
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{path.name}-{os.getpid()}-{os.urandom(8).hex()}")
    try:
        yield temporary
    finally:
        with suppress(OSError):  # the error that brought us here is the one to report
            temporary.unlink(missing_ok=True)


def _write_durably(path: Path, data: bytes | Iterable[bytes]) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, FILE_MODE)
    try:
        os.fchmod(descriptor, FILE_MODE)
        for piece in (data,) if isinstance(data, bytes) else data:
            _write_all(descriptor, piece)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    """`os.write` may write less than it was given (near a full disk, a quota, a signal)."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _link(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path, follow_symlinks=False)
        return
    except OSError as error:
        # NFS repeats a request whose answer was lost, and the second one fails: the link
        # count of our own file tells what happened, not the error.
        if temporary.stat().st_nlink == 2:
            return
        if not isinstance(error, FileExistsError) or not _same_content(temporary, path):
            raise


def _same_content(one: Path, other: Path) -> bool:
    with one.open("rb") as first, other.open("rb") as second:
        while True:
            piece = first.read(_CHUNK)
            if piece != second.read(_CHUNK):
                return False
            if not piece:
                return True
