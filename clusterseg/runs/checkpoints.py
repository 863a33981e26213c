"""Checkpoint files in a run directory: names, headers, verification, which one to resume from.

Everything here works without TensorFlow: the supervisor chooses with it, the trainer writes.
A checkpoint counts for attempt N+1 if claim N accepted it or if attempt N itself wrote it;
order is by the header's (attempt, step), never by name or time.
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
from typing import NamedTuple

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
    "Choice",
    "checkpoint_name",
    "commit_checkpoint",
    "list_checkpoints",
    "newest_acceptable",
    "reject",
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


class Choice(NamedTuple):
    """What a new attempt builds on. `accepted` is {file: sha256} for its claim."""

    newest: CheckpointInfo | None
    accepted: dict[str, str]
    messages: list[str]


def checkpoint_name(epoch: int, val_accuracy: float, step: int | None = None) -> str:
    """`weights-0003-0.8123.safetensors`; with `-step-000000420` for a save inside an epoch.

    `epoch` counts completed epochs, `val_accuracy` is the last one validated (0 to 1).
    """
    accuracy = min(max(val_accuracy, 0.0), 1.0) if math.isfinite(val_accuracy) else 0.0
    inside = "" if step is None else f"-step-{step:09d}"
    return f"weights-{epoch:04d}-{accuracy:.4f}{inside}.safetensors"


def list_checkpoints(
    folder: Path, on_unreadable: Callable[[Path, CheckpointError], None] | None = None
) -> list[CheckpointInfo]:
    """The checkpoints of a folder from oldest to newest, by their headers alone.

    Files that are no readable checkpoint are left out and told to `on_unreadable`.
    """
    found = []
    for path in _files(folder, _NAME):
        try:
            found.append(_info(path, read_layout(path)))
        except CheckpointError as error:
            if not path.exists():
                continue  # pruned since the folder was listed
            if on_unreadable is not None:
                on_unreadable(path, error)
    return sorted(found, key=lambda one: one.order)


def newest_acceptable(paths: RunPaths, previous: Claim | None) -> Choice:
    """Chooses what the attempt after `previous` resumes from, and tidies what counts no more.

    Call it only when attempt `previous` is known to have ended. The newest candidate is
    verified whole; a bad one is moved to `rejected/` and the one before it is tried. Files of
    attempts up to `previous` that no claim accepts are moved there too, and unfinished
    temporary files of theirs are removed. Files of later attempts are left alone: somebody
    else holds the next claim. Raises CheckpointError if there were checkpoints but none is good.
    """
    messages: list[str] = []
    if previous is None:
        return Choice(None, {}, messages)
    _remove_temporaries(paths.checkpoints, previous.attempt)
    bad = 0

    def set_aside(path: Path, why: str) -> None:
        place = reject(path, why, folder=paths.rejected)
        messages.append(f"{path.name} moved to {place.parent.name}/{place.name}: {why}")

    def unreadable(path: Path, error: CheckpointError) -> None:
        nonlocal bad
        bad += 1
        set_aside(path, error.message)

    candidates = []
    for info in list_checkpoints(paths.checkpoints, unreadable):
        if info.header.attempt > previous.attempt:
            messages.append(f"{info.name} was written by attempt {info.header.attempt}: left alone")
        elif (
            info.header.attempt == previous.attempt
            or previous.accepted.get(info.name) == info.sha256
        ):
            candidates.append(info)
        else:
            set_aside(info.path, f"no claim accepts it (attempt {info.header.attempt})")

    while candidates:
        newest = candidates[-1]
        try:
            verify(newest.path, newest.sha256)
        except CheckpointError as error:
            bad += 1
            set_aside(newest.path, error.message)
            candidates.pop()
        else:
            return Choice(newest, {one.name: one.sha256 for one in candidates}, messages)
    missing = sorted(name for name in previous.accepted if not (paths.checkpoints / name).exists())
    if bad or missing:
        gone = [f"{name} is missing" for name in missing if not _mentions(messages, name)]
        raise CheckpointError(
            f"no checkpoint of {paths.run_id} can be used: " + "; ".join(messages + gone),
            code="no-good-checkpoint",
            help="put a good checkpoint back into checkpoints/, or submit the job anew",
        )
    return Choice(None, {}, messages)


def unfinished_bytes(folder: Path, attempt: int) -> int | None:
    """How much of a checkpoint an attempt has written so far; None if it is not saving."""
    sizes = []
    for path in _files(folder, _TEMPORARY):
        match = _TEMPORARY.fullmatch(path.name)
        if match and int(match[1]) == attempt:
            with suppress(FileNotFoundError):
                sizes.append(path.stat().st_size)
    return sum(sizes) if sizes else None


def reject(path: Path, why: str, *, folder: Path | None = None) -> Path:
    """Moves a checkpoint to `rejected/` beside it and returns where it is now.

    Nothing there is overwritten; `why` stands in a small text file beside it. A file that has
    gone meanwhile is no error.
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
) -> CheckpointInfo:
    """Writes a checkpoint durably: temporary file, fsync, link(), fsync of the folder.

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
        try:
            os.link(temporary, target)
        except FileExistsError:
            if not _is_ours(target, sha256):
                _make_room(target, header.attempt, accepted)
                os.link(temporary, target)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()
    files.sync_folder(folder)
    return CheckpointInfo(name, target, header, sha256, size)


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
    reject(target, f"no claim accepts it (attempt {standing.header.attempt})")


def _info(path: Path, layout: Layout) -> CheckpointInfo:
    return CheckpointInfo(path.name, path, layout.header, layout.sha256, layout.file_size)


def _files(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [
                Path(entry.path)
                for entry in sorted(entries, key=lambda one: one.name)
                if pattern.fullmatch(entry.name)
                and stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode)
            ]
    except FileNotFoundError:
        return []


def _remove_temporaries(folder: Path, attempt: int) -> None:
    """Removes unfinished files of attempts up to `attempt`.

    Safe even if one of them still writes: its link() then fails, and it was not to count.
    """
    for path in _files(folder, _TEMPORARY):
        match = _TEMPORARY.fullmatch(path.name)
        if match and int(match[1]) <= attempt:
            with suppress(FileNotFoundError):
                path.unlink()


def _mentions(messages: list[str], name: str) -> bool:
    return any(message.startswith(name) for message in messages)
