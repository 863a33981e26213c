"""A folder that appears whole or not at all. Light."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clusterseg.errors import ClustersegError, ExitCode


@contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """Gives a fresh folder beside `folder`, which gets its name at the end, durably.

    After an error it is removed again. Raises ClustersegError for a folder that is there
    already and for what the system says.
    """
    refuse_existing(folder)
    fresh = folder.with_name(f".{folder.name}.partial-{os.getpid()}-{secrets.token_hex(3)}")
    try:
        fresh.mkdir(parents=True)
        yield fresh
        for path in [*fresh.rglob("*"), fresh]:
            _sync(path)
        fresh.rename(folder)  # also onto an empty folder
        _sync(folder.parent)
    except OSError as error:
        raise _not_written(folder, error) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def refuse_existing(folder: Path) -> None:
    """Raises ClustersegError if there is something at `folder` that is not an empty folder."""
    try:
        with suppress(FileNotFoundError):
            if folder.is_dir() and not any(folder.iterdir()):
                return
            if not os.path.lexists(folder):
                return
    except OSError as error:
        raise _not_written(folder, error) from error
    raise ClustersegError(
        f"{folder} is there already",
        code="folder-in-the-way",
        help="give another folder, or move this one away",
    )


def _sync(path: Path) -> None:
    """Of a file as of a folder: a descriptor to read from is enough for fsync."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _not_written(folder: Path, error: OSError) -> ClustersegError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ClustersegError(
            f"no space left to write {folder}; nothing was changed",
            code="disk-full",
            help="free space, or give a folder on another disk",
            exit_code=ExitCode.FAILED,
        )
    return ClustersegError(
        f"can't write {folder}: {error.strerror or error}",
        code="not-written",
        help="give another folder, or mend this one",
        exit_code=ExitCode.FAILED,
    )
