"""Packs old attempts of a run, so that many restarts do not leave thousands of small files."""

from __future__ import annotations

from collections.abc import Callable

from clusterseg.runs.attempts import iter_attempts, pack_attempt
from clusterseg.runs.paths import RunPaths
from clusterseg.supervise.journal import Journal

KEPT_OPEN = 8  # attempts before the newest that stay as folders, for people to look into


def pack_old_attempts(
    run: RunPaths, newest: int, journal: Journal, beat: Callable[[], None]
) -> None:
    """Packs the ended attempts that lie more than `KEPT_OPEN` before `newest`.

    Only those with an end record: a supervisor that was killed may have left a writer behind.
    What can't be packed stays as it is and is said. `beat` is called after each one: a holder
    that packs many must not look dead.
    """
    for attempt in iter_attempts(run):
        if attempt.number >= newest - KEPT_OPEN:
            return
        if attempt.packed or attempt.end is None:
            continue
        try:
            pack_attempt(run.attempt(attempt.number))
        except OSError as error:
            journal.say(f"attempt {attempt.number} can't be packed: {error}")
        beat()
