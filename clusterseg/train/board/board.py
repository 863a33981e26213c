"""What the curves of a run hold, attempt after attempt. Works in the caller's thread.

One event file an attempt, which nobody else writes. An attempt that resumes first cuts those
of all attempts before to the steps that count, and then writes what is missing up to there (a
kill takes what was not yet written) anew from the event logs and the history, so that each tag
has each of its points once. Pictures can't be had again: a checkpoint waits for those of its epoch.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clusterseg.runs import files
from clusterseg.runs.attempts import read_attempt
from clusterseg.runs.claims import is_superseded, read_claims
from clusterseg.runs.eventlog import iter_events
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Claim, Steps
from clusterseg.train.board.curves import table
from clusterseg.train.board.event_file import EventFile, trim
from clusterseg.train.board.pictures import Look, Painter, encode
from clusterseg.train.board.points import WINDOW, Entry, epoch_points, limits, window_points

# TensorBoard reads every file with "tfevents" in its name: a half-made copy must not have that.
_TEMPORARY = files.TEMPORARY_PREFIX + "board-"
_FIXED = frozenset({"input", "label"})  # pictures that are the same at every validation


class Superseded(Exception):
    """The next attempt was claimed: the files belong to it."""


@dataclass(frozen=True)
class Subject:
    """What the curves are of."""

    paths: RunPaths
    claim: Claim
    painter: Painter


class Board:
    """`begin` once, then the others. All raise OSError or tf.errors.OpError."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._last: dict[str, int] = {}
        self._file: EventFile | None = None

    def begin(self, history: Sequence[Entry]) -> None:
        """Brings everything to where the attempt begins. Raises Superseded too."""
        claim, paths = self._subject.claim, self._subject.paths
        self.write_table(history)
        files.make_private_dir(paths.tensorboard)
        counting = limits(read_claims(paths), claim)
        self._cut(counting)
        now = time.time()
        self._file = EventFile(paths.board_file(claim.attempt), self._last, now)
        self._file.begin_at(claim.resume_step + 1, now)
        for event in self._missing(counting):
            self._add_window(event)
        for entry in history:
            self._file.add(int(entry["step"] or 0), now, epoch_points(entry))
        self._file.sync()

    def window(self, event: Steps) -> None:
        """A window of steps is over."""
        self._add_window(event)
        if self._file:
            self._file.flush()

    def epoch(self, history: Sequence[Entry], look: Look | None) -> None:
        """An epoch was validated: the last of `history`. `look` holds samples of it."""
        entry = history[-1]
        if self._file:
            images = {
                tag: encode(pixels)
                for tag, pixels in (self._subject.painter.paint(look) if look else ())
                if tag not in self._last or tag.rpartition("/")[2] not in _FIXED
            }
            step = int(entry["step"] or 0)
            self._file.add(step, time.time(), epoch_points(entry), images)
            self._file.sync()

    def write_table(self, history: Sequence[Entry]) -> None:
        """curves.csv anew, from the history that counts."""
        path = self._subject.paths.curves
        if history or path.exists():
            self._ask()
            files.replace(path, table(history).encode())

    def close(self) -> None:
        file, self._file = self._file, None
        if file:
            file.close()

    def _add_window(self, event: Steps) -> None:
        if self._file:
            self._file.add(event.step, event.t, window_points(event))

    def _cut(self, counting: Mapping[int, int]) -> None:
        paths, own = self._subject.paths, self._subject.claim.attempt
        names = sorted(entry.name for entry in paths.tensorboard.iterdir())
        for name in names:  # what a kill left of a copy
            if (match := re.fullmatch(re.escape(_TEMPORARY) + r"(\d+)-\d+", name)) and (
                int(match[1]) < own
            ):
                (paths.tensorboard / name).unlink(missing_ok=True)
        for attempt, limit in sorted(counting.items()):
            path = paths.board_file(attempt)
            if path.name not in names:
                continue
            temporary = path.with_name(f"{_TEMPORARY}{own}-{attempt}")
            copy = trim(path, limit, self._last, temporary)
            self._ask()
            _put_in_place(copy, path)
        files.sync_folder(paths.tensorboard)

    def _missing(self, counting: Mapping[int, int]) -> Iterator[Steps]:
        """The windows that count and are in no event file, in order: the end of what was done."""
        known = self._last.get(WINDOW, 0)
        found: list[list[Steps]] = []
        for attempt, limit in sorted(counting.items(), reverse=True):
            if limit <= known:
                break
            found.append([one for one in self._windows(attempt) if known < one.step <= limit])
        for windows in reversed(found):
            yield from windows

    def _windows(self, attempt: int) -> list[Steps]:
        record = read_attempt(self._subject.paths.attempt(attempt))
        if record is None:
            return []
        try:
            with record.open("ranks/00000.jsonl") as stream:
                return [one for one in iter_events(stream) if isinstance(one, Steps)]
        except FileNotFoundError:  # it ended before its ranks began
            return []

    def _ask(self) -> None:
        if is_superseded(self._subject.paths, self._subject.claim):
            raise Superseded


def _put_in_place(copy: Path | None, path: Path) -> None:
    if copy:
        copy.rename(path)
    else:
        path.unlink(missing_ok=True)
