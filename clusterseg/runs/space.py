"""How much room a file system has left for the files of a run."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

from clusterseg.runs.checkpoints import list_checkpoints
from clusterseg.runs.paths import RunPaths

# Kept free for logs and events: what tells a person that the disk is full must not fail of it.
RESERVE = 16 << 20
FULL = (errno.ENOSPC, errno.EDQUOT)
_SMALL = 4096
_LEAST = 64 << 20  # bytes without which nothing is worth another try


@dataclass(frozen=True)
class Space:
    """What is free for us: `bytes`, and `inodes` (files); None where it can't be told."""

    bytes: int | None
    inodes: int | None


def is_full(folder: Path) -> bool:
    """Whether `folder` takes not even a small file: no room, no inode, no quota.

    Tried, since a quota does not show. Any other error says nothing: False.
    """
    try:
        with TemporaryFile(dir=folder, buffering=0) as file:
            file.write(bytes(_SMALL))
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno in FULL
    return False


def space_in(folder: Path) -> Space:
    """Of the file system that holds `folder`; a quota does not show. Raises OSError."""
    found = os.statvfs(folder)
    # File systems that count nothing say 0 of 0 (many FUSE ones; Btrfs has no inodes to count).
    return Space(
        found.f_bavail * found.f_frsize if found.f_blocks else None,
        found.f_favail if found.f_files else None,
    )


def room_again(run: RunPaths) -> bool:
    """Whether a run that a full disk has ended may go on: its largest checkpoint would fit once
    more, beside what is kept for logs. False where that can't be told.
    """
    try:
        largest = max((one.bytes for one in list_checkpoints(run.checkpoints)), default=0)
        free = space_in(run.root)
    except OSError:
        return False
    needed = max(_LEAST, largest + RESERVE)
    return (free.bytes is None or free.bytes >= needed) and free.inodes != 0
