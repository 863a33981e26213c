"""Copying what git tracks into a new run directory, durably and private."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.plan.model import CodeSource
from clusterseg.runs.files import FILE_MODE, FOLDER_MODE, make_private_dir, sync_folder
from clusterseg.submit.code_files import (
    File,
    Inventory,
    Link,
    copied_target,
    refuse_unless_small,
    shown_name,
)
from clusterseg.submit.git import Git

_AT_ONCE = 8  # files: most of the time is waiting for fsync
_TIMES = 3  # a file that changes while it is copied is copied again
_CHUNK = 1 << 20  # bytes


def take_inventory(top: str, git: Git, *, patience: float) -> Inventory:
    """What git tracks, as it is in the working tree, submodules included.

    Raises GitFailed, and ClustersegError if it is too much for a snapshot.
    """
    answer = git.ask("ls-files", "-z", "--cached", "--recurse-submodules", patience=patience)
    files, links, missing, foreign = [], [], [], []
    real: dict[str, bool] = {"": True}
    for name in dict.fromkeys(answer.data.split(b"\0")):  # in a merge a file is named three times
        path = os.fsdecode(name)
        if not path or ".." in path.split("/"):
            continue
        full = Path(top, path)
        try:
            status = full.lstat() if _is_real(top, posixpath.dirname(path), real) else None
        except OSError:
            status = None
        if status is None:
            missing.append(path)
        elif stat.S_ISLNK(status.st_mode):
            links.append(Link(path, str(full.readlink())))
        elif stat.S_ISREG(status.st_mode):
            files.append(File(path, status.st_size, bool(status.st_mode & stat.S_IXUSR)))
        elif stat.S_ISDIR(status.st_mode):
            foreign.append(path)
        else:
            missing.append(path)  # a pipe or a device in its place
    inventory = Inventory(top, tuple(files), tuple(links), tuple(missing), tuple(foreign))
    refuse_unless_small(inventory)
    return inventory


def copy_code(inventory: Inventory, folder: Path, source: CodeSource) -> None:
    """Makes `folder` the copy, on the disk when this returns.

    Raises ClustersegError if a file can't be read, OSError if one can't be written.
    """
    folders = [folder / name for name in inventory.folders()]
    for one in (folder, *folders):
        one.mkdir(mode=FOLDER_MODE)
        one.chmod(FOLDER_MODE)  # the umask may have taken bits away
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        copies = [
            pool.submit(_copy, Path(inventory.top, file.path), folder / file.path, file)
            for file in inventory.files
        ]
        try:
            for copy in copies:
                copy.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    kept = frozenset([*inventory.paths(), *inventory.folders()])
    for link in inventory.links:
        (folder / link.path).symlink_to(copied_target(link, inventory, kept))
    # Submitted from a folder that holds nothing git tracks: the ranks still start in it.
    make_private_dir(folder / Path(source.directory).relative_to(source.top))
    for one in (*reversed(folders), folder):
        sync_folder(one)


def _is_real(top: str, folder: str, known: dict[str, bool]) -> bool:
    """Whether a folder is one, and no link to somewhere else: git takes its files for deleted."""
    if folder not in known:
        known[folder] = _is_real(top, posixpath.dirname(folder), known) and stat.S_ISDIR(
            Path(top, folder).lstat().st_mode
        )
    return known[folder]


def _copy(original: Path, copy: Path, file: File) -> None:
    mode = FOLDER_MODE if file.executable else FILE_MODE
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    target = os.open(copy, flags, mode)
    try:
        os.fchmod(target, mode)
        for _ in range(_TIMES):
            os.ftruncate(target, 0)
            os.lseek(target, 0, os.SEEK_SET)
            if _copied_whole(original, target, file):
                os.fsync(target)
                return
    finally:
        os.close(target)
    raise _unreadable(file, "it keeps changing while it is copied")


def _copied_whole(original: Path, target: int, file: File) -> bool:
    """Copies; False if the original was written to meanwhile."""
    with _readable(file):
        source = os.open(original, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        before = os.fstat(source)
        left = before.st_size
        while left > 0:
            with _readable(file):
                piece = os.read(source, min(left, _CHUNK))
            if not piece:
                return False
            left -= len(piece)
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(target, rest) :]
        after = os.fstat(source)
    finally:
        os.close(source)
    return (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)


@contextmanager
def _readable(file: File) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _unreadable(file, error.strerror or str(error)) from None


def _unreadable(file: File, why: str) -> ClustersegError:
    return ClustersegError(
        f"code: snapshot: {shown_name(file.path)} can't be copied: {why}",
        code="no-snapshot",
        help="submit again when nothing writes to the repository",
        exit_code=ExitCode.FAILED,
    )
