"""Durable, private writes: what every other module of this room writes through.

A kill at any byte leaves the old state or the new one, never half of it: data goes to a file
of its own under a temporary name, is fsynced, gets its real name by `link` or `rename`, and
then the folder is fsynced. Folders are 0700 and files 0600 whatever the umask says. Nothing is
removed but the temporary file that the call itself made.

These rules hold on NFS too: `link` is the only exclusive creation to trust there. Its answer and
that of `rename` can be lost, so that an error is believed only after a look at what stands there
now. After a failed fsync the file is thrown away, because a second fsync of it would report
success without the data.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FILE_MODE = 0o600
FOLDER_MODE = 0o700
_ANYONES_MODE = 0o666  # as of any program's file: the umask says who may read it
TEMPORARY_PREFIX = ".tmp-"
_CHUNK = 1 << 20  # bytes compared at a time
# A handle that the server no longer knows (NFS): looking the name up again gives a good one.
_STALE_TRIES = 3


def commit_new(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Writes a file that must not exist yet, durable when this returns.

    `data` may be given in pieces, for files too large to hold twice. Raises FileExistsError if
    `path` exists with other content (the same content means: done before), OSError if it cannot
    be written; `path` then is as it was.
    """
    with _temporary(path) as temporary:
        _write_durably(temporary, data)
        link_new(temporary, path)
    sync_folder(path.parent)


def replace(path: Path, data: bytes | Iterable[bytes], *, private: bool = True) -> None:
    """Writes `path` anew, durable when this returns; a reader sees the old file or the new one.

    Not `private`: what a user asked for by name, whose mode is what the umask leaves of 0666.
    """
    with _temporary(path) as temporary:
        _write_durably(temporary, data, private=private)
        _rename(temporary, path)
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
    sees it on its next open. Its readers must bear a torn file; one that was not empty and is
    not to become so is never empty in between, even if this is killed.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        _write_all(descriptor, data)
        os.ftruncate(descriptor, len(data))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_capped(path: Path, limit: int) -> bytes:
    """At most `limit` bytes of a file, by a fresh open (never cached metadata).

    Raises FileNotFoundError, or another OSError.
    """
    for _ in range(_STALE_TRIES - 1):
        try:
            return _read_capped(path, limit)
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
    return _read_capped(path, limit)


def link_new(temporary: Path, path: Path) -> None:
    """Gives a finished file its real name, which nothing may have yet.

    Raises FileExistsError if something else stands there (the same content means: done before),
    or another OSError; `path` then is as it was.
    """
    try:
        os.link(temporary, path, follow_symlinks=False)
    except OSError:
        # NFS repeats a request whose answer was lost, and the second one fails (EEXIST); or the
        # answer is an error though the server did it. What stands there tells, not the error.
        # The link count is the quick way; it may come from a cache, the content does not.
        if temporary.stat().st_nlink != 2 and not _same_content(temporary, path):
            raise


def sync_folder(path: Path) -> None:
    """Makes the names in a folder durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def same_file(one: str | None, other: str | Path) -> bool:
    """Whether two paths lead to one file; False if there is no such path or file."""
    try:
        return one is not None and Path(one).samefile(other)
    except OSError:
        return False


def _read_capped(path: Path, limit: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        pieces = []
        while limit > 0 and (piece := os.read(descriptor, limit)):
            pieces.append(piece)
            limit -= len(piece)
        return b"".join(pieces)
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


def _write_durably(path: Path, data: bytes | Iterable[bytes], *, private: bool = True) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, FILE_MODE if private else _ANYONES_MODE)
    try:
        if private:
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


def _rename(temporary: Path, path: Path) -> None:
    try:
        temporary.rename(path)
    except OSError:  # or it was done, and the answer was lost
        if temporary.exists() or not path.exists():
            raise


def _same_content(one: Path, other: Path) -> bool:
    """Whether two files hold the same; False if the other is not there or can't be read."""
    with suppress(OSError), one.open("rb") as first, other.open("rb") as second:
        while True:
            piece = first.read(_CHUNK)
            if piece != second.read(_CHUNK):
                return False
            if not piece:
                return True
    return False
