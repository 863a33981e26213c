"""The thread of rank 0 that writes the curves, so that no step ever waits for them.

It calls no communicator and writes no event. Whatever goes wrong in it is said once in the
rank's log; the training goes on.
"""

from __future__ import annotations

import queue
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import tensorflow as tf

from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Claim, Steps
from clusterseg.spec.model import TrainSpec
from clusterseg.train.assembly import Assembly
from clusterseg.train.board.board import Board, Subject, Superseded
from clusterseg.train.board.pictures import Look, Painter
from clusterseg.train.board.points import Entry, pictures_due
from clusterseg.train.failures import warn
from clusterseg.train.progress import Progress

_WAITING = 256  # windows and epochs that may wait for the disk: some minutes
_BEFORE_A_CHECKPOINT = 5.0  # seconds that one waits for the pictures of the epoch before it
_PATIENCE = 10.0  # seconds that the end of a rank waits for what is not yet written
_ERRORS = (OSError, tf.errors.OpError)


See = Callable[[Any, Any, Any, Any], None]
"""Takes images, labels, predictions and validity of a batch (`pictures.Look`)."""


class Scribe:
    """Starts its thread at once. Every method but `settle` and `close` returns at once; none
    raises."""

    def __init__(
        self, board: Board, history: Sequence[Entry], *, epochs: int, waiting: int = _WAITING
    ) -> None:
        self._board = board
        self._epochs = epochs
        self._history = list(history)
        self._look: Look | None = None
        self._paints = True
        self._queue: queue.Queue[Callable[[], None] | None] = queue.Queue(waiting)
        self._given = self._awaited = self._done = 0  # pieces of work; up to the last epoch's
        self._progress = threading.Condition()
        self._closing = False
        self._dropped = 0
        self._warned = False
        self._thread = threading.Thread(target=self._work, name="scribe", daemon=True)
        self._thread.start()

    def window(self, event: Steps) -> None:
        """A window of steps was closed."""
        self._put(partial(self._board.window, event))

    def look(self, epoch: int) -> See | None:
        """What is to see the batches of the validation of `epoch` (from 1), if anything."""
        due = self._paints and pictures_due(epoch, self._epochs)
        self._look = Look() if due else None
        return self._see if due else None

    def _see(self, images: Any, labels: Any, predictions: Any, valid: Any) -> None:
        """In the main thread: an error here would end all ranks for want of a picture."""
        if self._look is None:
            return
        try:
            self._look(images, labels, predictions, valid)
        except Exception:
            self._look, self._paints = None, False
            warn(f"the training goes on, without further pictures:\n{traceback.format_exc()}")

    def epoch(self, history: Sequence[Entry]) -> None:
        """The last epoch of `history` was validated."""
        look, self._look = self._look, None
        self._history = known = list(history)
        if self._put(partial(self._board.epoch, known, look)):
            self._awaited = self._given

    def settle(self, patience: float = _BEFORE_A_CHECKPOINT) -> None:
        """Returns when the epochs told of are on the disk or never will be, at the latest after
        `patience` seconds; for another thread.

        Who resumes from a checkpoint after an epoch can't paint its pictures again: so they come
        before it.
        """
        awaited = self._awaited
        with self._progress:
            self._progress.wait_for(lambda: self._done >= awaited, patience)

    def close(self, patience: float = _PATIENCE) -> None:
        """Waits until everything is written, at most `patience` seconds."""
        self._closing = True
        with suppress(queue.Full):  # then it works, and sees `_closing` when it is through
            self._queue.put_nowait(None)
        self._thread.join(patience)
        if self._thread.is_alive():
            self._say("they are not all written yet, and the rank does not wait longer")

    def _put(self, work: Callable[[], None]) -> bool:
        """False if there is no place for it."""
        try:
            self._queue.put_nowait(work)
            self._given += 1
            return True
        except queue.Full:
            self._dropped += 1
            if self._dropped == 1:
                self._say("the disk is too slow for them, and points are left out")
            return False

    def _work(self) -> None:
        history = self._history
        works = self._try(partial(self._board.begin, history))
        while not (self._closing and self._queue.empty()):
            work = self._queue.get()
            if work is None:
                break
            if works:
                works = self._try(work)
            with self._progress:
                self._done += 1
                self._progress.notify_all()
            if history is not self._history:
                history = self._history
                # At every epoch, whatever happened to the rest: it is written whole.
                self._try(partial(self._board.write_table, history))
        self._try(self._board.close)

    def _try(self, work: Callable[[], None]) -> bool:
        """False if it went wrong, and the event file may be torn: the next attempt mends it."""
        try:
            work()
        except Superseded:
            return False
        except _ERRORS as error:
            message = error.message if isinstance(error, tf.errors.OpError) else str(error)
            self._say(f"{message}; the next attempt writes what is missing")
            return False
        except Exception:
            self._say(f"an error of ours:\n{traceback.format_exc()}")
            return False
        return True

    def _say(self, why: str) -> None:
        if self._warned:
            return
        self._warned = True
        warn(f"the training goes on, but not all its curves: {why}")


def start_scribe(
    paths: RunPaths,
    claim: Claim,
    spec: TrainSpec,
    assembly: Assembly,
    progress: Progress,
) -> Scribe:
    """For rank 0 of the attempt that `claim` holds, at the beginning of its training."""
    dataset = assembly.dataset
    painter = Painter(dataset.colors, assembly.classes, spec.loss.ignore, assembly.normalisation)
    board = Board(Subject(paths=paths, claim=claim, painter=painter))
    return Scribe(board, progress.history, epochs=spec.epochs)
