"""One process at a time: a lock that ends with its holder, however that ends.

It is flock(2) on a file that names the holder. Over NFS, Linux makes of it a lock of the server's,
which holds between hosts and ends when a host that had it is gone (flock(2), since Linux 2.6.12).
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from clusterseg.runs import files

_LARGEST = 4096  # bytes
_TURNS = 100  # at a lock that is removed in the moment that we get it


class Holder(Struct, frozen=True, kw_only=True):
    """Who has the lock. `since`: unix seconds."""

    host: str
    pid: int
    since: float


class Taken(Exception):
    """Another process has the lock. `holder`: None if it has not said yet who it is."""

    def __init__(self, holder: Holder | None) -> None:
        super().__init__(holder)
        self.holder = holder


@contextmanager
def held(path: Path) -> Iterator[bool]:
    """Holds the lock `path`, which is made with its folder, and removed with it if that is empty.

    False: the file system has no locks, and others may be at work, too. Raises Taken, or OSError.
    """
    descriptor, has_lock = _locked(path)
    try:
        yield has_lock
    finally:
        # Removed before it is let go: whoever gets it in between sees that it is no longer there.
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)
        with suppress(OSError):
            path.parent.rmdir()


def _locked(path: Path) -> tuple[int, bool]:
    for turn in range(_TURNS):
        try:
            descriptor = _opened(path)
        except (FileNotFoundError, FileExistsError):  # a holder is just removing the folder
            if turn == _TURNS - 1:
                raise
            continue
        try:
            has_lock = _is_ours(descriptor)
            if not has_lock or _leads_to(path, descriptor):
                if has_lock:
                    _sign(descriptor)
                return descriptor, has_lock
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    raise Taken(None)  # it went from hand to hand all the time


def _opened(path: Path) -> int:
    files.make_private_dir(path.parent)
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.open(path, flags, files.FILE_MODE)


def _is_ours(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Taken(_holder(descriptor)) from None
    except OSError:  # a file system without locks
        return False
    return True


def _leads_to(path: Path, descriptor: int) -> bool:
    """Whether the file that we locked is still the one that others will find."""
    try:
        there, ours = path.stat(follow_symlinks=False), os.fstat(descriptor)
    except FileNotFoundError:
        return False
    return os.path.samestat(there, ours)


def _sign(descriptor: int) -> None:
    me = Holder(host=os.uname().nodename, pid=os.getpid(), since=time.time())
    data = msgspec.json.encode(me)
    with suppress(OSError):  # a full disk: it is held all the same
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, data, 0)
        os.fsync(descriptor)


def _holder(descriptor: int) -> Holder | None:
    try:
        return msgspec.json.decode(os.pread(descriptor, _LARGEST, 0), type=Holder)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
