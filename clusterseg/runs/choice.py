"""Which checkpoint the next attempt builds on, and what it may count on besides.

Called by whoever is about to claim. It decides by what files hold, never by a file system's bad
moment: a good checkpoint that can't be read just now must neither be set aside nor passed over.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from clusterseg.runs.attempts import read_attempt
from clusterseg.runs.checkpoint_file import CheckpointError, Layout, read_layout, verify
from clusterseg.runs.checkpoints import (
    CheckpointInfo,
    counts,
    is_checkpoint_name,
    list_checkpoints,
    listed,
    reject,
    remove_temporaries,
)
from clusterseg.runs.eventlog import iter_events
from clusterseg.runs.fit import Difference, Fits, fits_all, mismatch
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Checkpoint, Claim

_TRIES = 3  # for what may be a file system's bad moment
_BETWEEN = 1.0  # seconds between two tries
_LONGEST_CACHE = 90  # tries: a name may stay unseen for 60 s on an NFS client, and slack
_Read = TypeVar("_Read")


class Choice(NamedTuple):
    """What a new attempt builds on. `accepted` is {file: sha256} for its claim."""

    newest: CheckpointInfo | None
    accepted: dict[str, str]
    messages: list[str]


def newest_acceptable(paths: RunPaths, previous: Claim | None, fits: Fits = fits_all) -> Choice:
    """Chooses what the attempt after `previous` resumes from, and tidies what counts no more.

    Call it only when attempt `previous` is known to have ended. The newest candidate is
    verified whole; a bad one is moved to `rejected/` and the one before it is tried. Files of
    attempts up to `previous` that no claim accepts are moved there too, and unfinished
    temporary files of theirs are removed. Files of later attempts are left alone: somebody
    else holds the next claim. Raises CheckpointError if there were checkpoints but none is good.

    `fits` says whether a good one is of this job. Of another job beside one that fits, it has
    strayed in here and is set aside as well; if none fits, it is the job that has changed:
    nothing more is moved, and the CheckpointError (`checkpoint-mismatch`) names the differences.
    """
    messages: list[str] = []
    if previous is None:
        return Choice(None, {}, messages)
    remove_temporaries(paths.checkpoints, previous.attempt)
    bad = 0

    def set_aside(path: Path, why: str, sha256: str | None = None) -> None:
        place = reject(path, why, folder=paths.rejected, sha256=sha256)
        as_what = "" if place.name == path.name else place.name
        why = why.removeprefix(path.name).strip()
        messages.append(f"{path.name} moved to {place.parent.name}/{as_what}: {why}")

    def unreadable(path: Path, error: CheckpointError) -> None:
        nonlocal bad
        bad += 1
        set_aside(path, error.message)

    _wait_for_names(paths.checkpoints)
    candidates = []
    for info in list_checkpoints(paths.checkpoints, unreadable, read=_read):
        if info.header.attempt > previous.attempt:
            messages.append(f"{info.name} was written by attempt {info.header.attempt}: left alone")
        elif counts(info, previous):
            candidates.append(info)
        else:
            why = f"no claim accepts it (attempt {info.header.attempt})"
            set_aside(info.path, why, info.sha256)

    strangers: list[tuple[CheckpointInfo, Sequence[Difference]]] = []
    while candidates:
        newest = candidates[-1]
        try:
            _patiently(lambda one: verify(one.path, one.sha256), newest)
        except CheckpointError as error:
            bad += 1
            set_aside(newest.path, error.message)
            candidates.pop()
            continue
        differ = fits(newest.header)
        if differ:
            strangers.append((newest, differ))
            candidates.pop()
            continue
        for stranger, found in strangers:
            why = "it is of another job: " + "; ".join(map(str, found))
            set_aside(stranger.path, why, stranger.sha256)
        last = saved_last(paths, previous)
        if last is not None and _is_gone(paths, last) and not _mentions(messages, last):
            messages.append(f"{_gone(paths, last)}: going on from {newest.name}")
        return Choice(newest, {one.name: one.sha256 for one in candidates}, messages)
    if strangers:
        raise mismatch(strangers[0][0].name, strangers[0][1])
    gone = [name for name in _missing(paths, previous) if not _mentions(messages, name)]
    if bad or gone:
        raise _none_left(paths, [*messages, *(_gone(paths, name) for name in gone)])
    return Choice(None, {}, messages)


def refuse_if_lost(paths: RunPaths, claim: Claim) -> None:
    """Raises CheckpointError if a run whose last claim is `claim` has saved, and no file of it is
    a checkpoint any more by its header: going on, it would begin anew. Moves nothing."""
    found: list[str] = []

    def unreadable(path: Path, error: CheckpointError) -> None:
        if not isinstance(error.__cause__, OSError):  # its bad moment says nothing about the file
            found.append(error.message)

    if any(counts(one, claim) for one in list_checkpoints(paths.checkpoints, unreadable)):
        return
    found += [_gone(paths, name) for name in _missing(paths, claim)]
    if found:
        raise _none_left(paths, found)


def trouble(paths: RunPaths, name: str) -> str | None:
    """What is wrong with a checkpoint that should be there, as far as its header tells; nothing is
    known of files that are called otherwise (of a `command`)."""
    if not is_checkpoint_name(name):
        return None
    if _is_gone(paths, name):
        return _gone(paths, name)
    try:
        read_layout(paths.checkpoints / name)
    except CheckpointError as error:
        return error.message
    return None


def saved_last(paths: RunPaths, claim: Claim) -> str | None:
    """The checkpoint that the holder of `claim` saved last, by the events of its rank 0.

    No rule lets it go, so it is there, or was taken away. None if there is none, or if the events
    can't be read: what a person has tidied away is no loss of a checkpoint. A `command` may tell of
    files of its own, which are called otherwise and are its own affair.
    """
    last = None
    try:
        attempt = read_attempt(paths.attempt(claim.attempt))
        if attempt is not None:
            with attempt.open("ranks/00000.jsonl") as stream:
                for event in iter_events(stream):
                    if isinstance(event, Checkpoint) and is_checkpoint_name(event.file):
                        last = event.file
    except OSError:
        return None
    return last


def _missing(paths: RunPaths, claim: Claim) -> list[str]:
    """Checkpoints that counted and are not there: that are accepted, and the one saved last."""
    last = saved_last(paths, claim)
    names = {*claim.accepted, *([last] if last is not None else [])}
    return sorted(name for name in names if _is_gone(paths, name))


def _is_gone(paths: RunPaths, name: str) -> bool:
    return not os.path.lexists(paths.checkpoints / name)


def _gone(paths: RunPaths, name: str) -> str:
    where = ", it was moved to rejected/" if os.path.lexists(paths.rejected / name) else ""
    return f"{name} is missing{where}"


def _none_left(paths: RunPaths, why: Iterable[str]) -> CheckpointError:
    return CheckpointError(
        f"no checkpoint of {paths.run_id} can be used: " + "; ".join(why),
        code="no-good-checkpoint",
        help="put a good checkpoint back into checkpoints/, or submit the job anew",
    )


def _wait_for_names(folder: Path) -> None:
    """Returns when every name that is listed is also found.

    A host's cache may say "there is no such file" of one that another host has made since: it
    must not be taken for pruned. Raises OSError if that stays so.
    """
    for _ in range(_LONGEST_CACHE):
        if all(os.path.lexists(path) for path in listed(folder)):
            return
        time.sleep(_BETWEEN)
    raise OSError(errno.ESTALE, "lists checkpoints that can't be found", str(folder))


def _read(path: Path) -> Layout:
    return _patiently(read_layout, path)


def _patiently(read: Callable[[_Read], Layout], what: _Read) -> Layout:
    """Reads; what the file system's bad moment made fail is tried again.

    Raises CheckpointError for a file that is bad (EIO that stays: its blocks are), or not there;
    OSError for what says nothing about the file (ESTALE, ETIMEDOUT, EACCES, EMFILE, …).
    """
    for left in reversed(range(_TRIES)):
        try:
            return read(what)
        except CheckpointError as error:
            cause = error.__cause__
            if not isinstance(cause, OSError) or isinstance(cause, FileNotFoundError):
                raise
            if not left:
                if cause.errno == errno.EIO:
                    raise
                raise cause from None
        time.sleep(_BETWEEN)
    raise AssertionError("unreachable")


def _mentions(messages: list[str], name: str) -> bool:
    return any(message.startswith(name) for message in messages)
