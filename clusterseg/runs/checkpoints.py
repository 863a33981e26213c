"""Checkpoint files in a run directory: names, headers, verification, which ones count.

Everything here works without TensorFlow: the supervisor chooses with it (`runs.choice`), the
trainer writes. A checkpoint counts for attempt N+1 if claim N accepted it or if attempt N itself
wrote it; order is by the header's (attempt, step), never by name or time.
"""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from clusterseg.runs import files
from clusterseg.runs.checkpoint_file import (
    CheckpointError,
    Layout,
    Tensor,
    read_layout,
    verify,
    write_file,
)
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import CheckpointHeader, Claim

__all__ = [
    "CheckpointError",
    "CheckpointInfo",
    "checkpoint_name",
    "commit_checkpoint",
    "counting_checkpoints",
    "counts",
    "is_checkpoint_name",
    "list_checkpoints",
    "listed",
    "reject",
    "remove_temporaries",
    "superseded",
    "unfinished_bytes",
    "verify",
]

_NAME = re.compile(r"weights-\d{4,}-\d\.\d{4}(-step-\d{9,})?\.safetensors")
_TEMPORARY = re.compile(r"\.weights-[^/]*\.attempt-(\d+)\.[0-9a-f]+\.tmp")


@dataclass(frozen=True)
class CheckpointInfo:
    """A checkpoint by its header. `sha256` is what the header says, verified or not."""

    name: str
    path: Path
    header: CheckpointHeader
    sha256: str
    bytes: int

    @property
    def order(self) -> tuple[int, int, bool]:
        """Sorts from oldest to newest; at the same step the validated one is newer."""
        return (self.header.attempt, self.header.step, self.header.validated)


def checkpoint_name(epoch: int, val_accuracy: float, step: int | None = None) -> str:
    """`weights-0003-0.8123.safetensors`; with `-step-000000420` for a save inside an epoch.

    `epoch` counts completed epochs, `val_accuracy` is the last one validated (0 to 1).
    """
    accuracy = min(max(val_accuracy, 0.0), 1.0) if math.isfinite(val_accuracy) else 0.0
    inside = "" if step is None else f"-step-{step:09d}"
    return f"weights-{epoch:04d}-{accuracy:.4f}{inside}.safetensors"


def is_checkpoint_name(name: str) -> bool:
    """Whether a file is called as `checkpoint_name` calls them."""
    return _NAME.fullmatch(name) is not None


def list_checkpoints(
    folder: Path,
    on_unreadable: Callable[[Path, CheckpointError], None] | None = None,
    *,
    read: Callable[[Path], Layout] = read_layout,
) -> list[CheckpointInfo]:
    """The checkpoints of a folder from oldest to newest, by their headers alone.

    Files that are no readable checkpoint are left out and told to `on_unreadable`.
    """
    found = []
    for path in _files(folder, _NAME):
        try:
            layout = read(path)
        except CheckpointError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                continue  # pruned since the folder was listed
            if on_unreadable is not None:
                on_unreadable(path, error)
        else:
            found.append(_info(path, layout))
    return sorted(found, key=lambda one: one.order)


def listed(folder: Path) -> list[Path]:
    """What a folder lists by a checkpoint's name, whether it can be found or not."""
    return _names(folder, _NAME)


def counts(info: CheckpointInfo, claim: Claim) -> bool:
    """Whether a file counts while `claim` is the last one: it wrote it, or accepts it.

    Anything else comes from an attempt that had lost the run when it wrote it.
    """
    own = info.header.attempt == claim.attempt
    return own or claim.accepted.get(info.name) == info.sha256


def counting_checkpoints(paths: RunPaths, claim: Claim) -> list[CheckpointInfo]:
    """The checkpoints of a run whose last claim is `claim`, from oldest to newest; by headers."""
    return [info for info in list_checkpoints(paths.checkpoints) if counts(info, claim)]


def unfinished_bytes(folder: Path, attempt: int) -> int | None:
    """How much of a checkpoint an attempt has written so far; None if it is not saving."""
    sizes = []
    for path in _files(folder, _TEMPORARY):
        match = _TEMPORARY.fullmatch(path.name)
        if match and int(match[1]) == attempt:
            with suppress(FileNotFoundError):
                sizes.append(path.stat().st_size)
    return sum(sizes) if sizes else None


def remove_temporaries(folder: Path, attempt: int) -> None:
    """Removes unfinished files of attempts up to `attempt`.

    Safe even if one of them still writes: its link() then fails, and it was not to count.
    """
    for path in _files(folder, _TEMPORARY):
        match = _TEMPORARY.fullmatch(path.name)
        if match and int(match[1]) <= attempt:
            with suppress(FileNotFoundError):
                path.unlink()


def reject(path: Path, why: str, *, folder: Path | None = None, sha256: str | None = None) -> Path:
    """Moves a checkpoint to `rejected/` beside it and returns where it is now.

    Nothing there is overwritten; `why` stands in a small text file beside it. A file that has
    gone meanwhile is no error. `sha256` is that of the file that was judged, by its header: if
    another has taken its name since (we were paused), that one is put back.
    """
    folder = path.parent / "rejected" if folder is None else folder
    files.make_private_dir(folder)
    place = folder / path.name
    number = 0
    while place.exists():
        number += 1
        place = folder / f"{path.name}.{number}"
    with suppress(FileNotFoundError):
        path.rename(place)
    if sha256 is not None and _has_other_content(place, sha256):
        files.link_new(place, path)
        place.unlink()
        files.sync_folder(path.parent)
        return path
    with suppress(OSError):  # the reason is a comfort, moving the file is what matters
        descriptor = os.open(
            place.with_name(place.name + ".txt"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600
        )
        with os.fdopen(descriptor, "w") as file:
            file.write(why + "\n")
    return place


def commit_checkpoint(
    folder: Path,
    name: str,
    header: CheckpointHeader,
    tensors: Iterable[Tensor],
    *,
    accepted: dict[str, str],
    holds: Callable[[], bool] = lambda: True,
) -> CheckpointInfo:
    """Writes a checkpoint durably: temporary file, fsync, link(), fsync of the folder.

    `holds` is asked last: writing may have taken long, and the run may be another's by now.

    Never replaces a file. What stands under `name` already is, in this order: identical, then
    all is done; from an earlier attempt and not in `accepted` (this attempt's claim), then it is
    moved to `rejected/`; anything else is a CheckpointError, as only a newer attempt or a
    mistake can put it there. Raises OSError (ENOSPC, EIO, …) with the temporary file removed.
    """
    target = folder / name
    temporary = folder / f".{name}.attempt-{header.attempt}.{os.urandom(4).hex()}.tmp"
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        try:
            sha256 = write_file(descriptor, header, tensors)
            size = os.fstat(descriptor).st_size
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if not holds():
            raise superseded(header.attempt)
        try:
            os.link(temporary, target)
        except OSError as error:
            if not _is_ours(target, sha256):
                if not isinstance(error, FileExistsError):
                    raise
                _make_room(target, header.attempt, accepted)
                os.link(temporary, target)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()
    files.sync_folder(folder)
    return CheckpointInfo(name, target, header, sha256, size)


def superseded(attempt: int) -> CheckpointError:
    """What an attempt that lost the run says instead of saving."""
    return CheckpointError(
        f"attempt {attempt + 1} was claimed while this one still runs",
        code="superseded",
        help="this attempt was given up by its supervisor; it ends without saving",
    )


def _is_ours(target: Path, sha256: str) -> bool:
    """Whether the file was linked in spite of the answer (NFS), or is identical anyway."""
    try:
        return read_layout(target).sha256 == sha256
    except CheckpointError:
        return False


def _make_room(target: Path, attempt: int, accepted: dict[str, str]) -> None:
    try:
        standing = read_layout(target)
    except CheckpointError as error:
        reject(target, error.message)
        return
    if standing.header.attempt > attempt:
        raise CheckpointError(
            f"{target.name} was written by attempt {standing.header.attempt} while attempt "
            f"{attempt} still runs",
            code="superseded",
            help="this attempt was given up by its supervisor; it ends without saving",
        )
    if standing.header.attempt == attempt or accepted.get(target.name) == standing.sha256:
        raise CheckpointError(f"{target.name} exists already with other content")
    why = f"no claim accepts it (attempt {standing.header.attempt})"
    reject(target, why, sha256=standing.sha256)


def _has_other_content(path: Path, sha256: str) -> bool:
    try:
        return read_layout(path).sha256 != sha256
    except CheckpointError:
        return False  # gone, or not readable: not what anybody would want back


def _info(path: Path, layout: Layout) -> CheckpointInfo:
    return CheckpointInfo(path.name, path, layout.header, layout.sha256, layout.file_size)


def _files(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    """The plain files whose names fit, by name; one that goes meanwhile is left out."""
    found = []
    for path in _names(folder, pattern):
        with suppress(FileNotFoundError):
            if stat.S_ISREG(path.lstat().st_mode):
                found.append(path)
    return found


def _names(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    try:
        names = os.listdir(folder)  # noqa: PTH208 (names only)
    except FileNotFoundError:
        return []
    return [folder / name for name in sorted(names) if pattern.fullmatch(name)]
