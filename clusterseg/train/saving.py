"""Saves checkpoints while the training goes on: rank 0 copies, and a thread of it writes.

Only the copy is in the way of a step. What becomes of the file shows later: rank 0 looks after
each step (`poll`), and what the others must know travels as a wish of it in the next reduction,
or is told by `save`, which all ranks call at the same place.
"""

from __future__ import annotations

import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

from clusterseg.runs.checkpoint_file import Tensor
from clusterseg.runs.eventlog import EventWriter
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Checkpoint, CheckpointHeader, Claim, Phase
from clusterseg.spec.model import CheckpointSpec
from clusterseg.train.communicator import Communicator
from clusterseg.train.failures import FailureKind, SaveFailure, TrainingError, save_failure, warn
from clusterseg.train.progress import Progress
from clusterseg.train.snapshot import Snapshot
from clusterseg.train.state import TrainState
from clusterseg.train.store import CheckpointStore, Written
from clusterseg.train.writer import Writer

_CAUSES = ("disk full:", "i/o error:", "nan:", "out of memory:")
_LAST_WRITE = 120.0  # seconds for the write under way when the attempt fails


@dataclass
class _Save:
    """One save on its way: `place` in the run, what is written, seconds it held a step up."""

    place: tuple[int, bool]
    name: str
    header: CheckpointHeader
    tensors: list[Tensor]
    blocked: float


class Saver:
    """All ranks call `begin`, `save` and `give_up` at the same steps; only rank 0 writes.

    The other parameters are the parts of the header that are the same in all checkpoints of the
    attempt.
    """

    def __init__(
        self,
        *,
        paths: RunPaths,
        claim: Claim,
        spec: CheckpointSpec,
        state: TrainState,
        communicator: Communicator,
        events: EventWriter,
        seed: int,
        global_batch: int,
        identity: dict[str, str],
        schedule: dict[str, float | int | str],
    ) -> None:
        self._claim = claim
        self._communicator = communicator
        self._events = events
        self._seed = seed
        self._global_batch = global_batch
        self._identity = identity
        self._schedule = schedule
        self._snapshot = Snapshot(state)
        self._store = CheckpointStore(paths, claim, spec)
        self._writer: Writer[Written | None] = Writer()
        self._save: _Save | None = None
        self._durable: tuple[int, bool] | None = None
        self._last_write = 0.0
        self._last_time = time.monotonic()
        self._problem = ""
        if communicator.rank == 0:
            self._writer.start(self._snapshot.prepare)

    @property
    def seconds_since_save(self) -> float:
        """On this rank's clock since the last one was begun, or since the attempt's start."""
        return time.monotonic() - self._last_time

    def begin(self, progress: Progress) -> None:
        """Copies the state and has it written; waits only for the write before, if there is one.

        Talks to no other rank.
        """
        began = time.perf_counter()
        if self._communicator.rank == 0:
            self._take(self._writer.wait())
            if not self._problem:  # else all ranks end after the next step
                self._start(self._copy(progress, began))
        self._last_time = time.monotonic()
        self._note_phase(began)

    def poll(self) -> bool:
        """Whether rank 0 gives up; tells what became of the write under way. Never blocks."""
        if self._communicator.rank != 0:
            return False
        self._take(self._writer.result())
        return bool(self._problem)

    def save(self, progress: Progress) -> None:
        """Returns when a checkpoint of `progress` is durable, begun before or not.

        Raises TrainingError on all ranks alike if it could not be saved on rank 0.
        """
        began = time.perf_counter()
        if self._communicator.rank == 0:
            self._take(self._writer.wait())
            if not self._problem and self._durable != _place(progress):
                self._start(self._copy(progress, began))
                self._take(self._writer.wait())
        self._last_time = time.monotonic()
        if problem := self._communicator.broadcast_text(self._problem):
            raise _error(problem)
        self._note_phase(began)

    def give_up(self) -> NoReturn:
        """Raises the TrainingError that rank 0 has for all; all ranks call it."""
        raise _error(self._communicator.broadcast_text(self._problem))

    def settle(self) -> None:
        """Lets the write under way come to its end: the attempt fails, but not the step saved."""
        if self._communicator.rank == 0:
            with suppress(OSError):
                self._take(self._writer.wait(_LAST_WRITE))

    def _copy(self, progress: Progress, began: float) -> _Save:
        begin_copy = time.perf_counter()
        tensors = self._snapshot.take()
        copied = time.perf_counter()
        header = progress.to_header(
            attempt=self._claim.attempt,
            t=time.time(),
            seed=self._seed,
            global_batch=self._global_batch,
            world_size=self._communicator.size,
            identity=self._identity,
            schedule=self._schedule,
            times={"copy": copied - begin_copy, "write_before": self._last_write},
        )
        name = progress.checkpoint_name
        return _Save(_place(progress), name, header, tensors, blocked=copied - began)

    def _start(self, save: _Save) -> None:
        self._save = save
        self._writer.start(partial(self._store.write, save.name, save.header, save.tensors))

    def _take(self, outcome: Written | BaseException | None) -> None:
        """What the writer came to: the event of a checkpoint, or a problem."""
        save = self._save
        if outcome is None or save is None:  # under way, or no save at all
            return
        self._save = None
        if isinstance(outcome, BaseException):
            self._fail(save_failure(outcome, save.header.step), outcome)
            return
        self._durable = save.place
        self._last_write = outcome.seconds
        self._events.write(
            Checkpoint(
                t=time.time(),
                rank=0,
                epoch=save.header.epoch,
                step=save.header.step,
                file=outcome.info.name,
                bytes=outcome.info.bytes,
                blocked_seconds=save.blocked,
                write_seconds=outcome.seconds,
            )
        )

    def _fail(self, failure: SaveFailure, error: BaseException) -> None:
        if failure.kind is FailureKind.OTHER:
            warn("".join(traceback.format_exception(error)))
        self._problem = failure.message

    def _note_phase(self, began: float) -> None:
        self._events.write(
            Phase(
                t=time.time(),
                rank=self._communicator.rank,
                name="save",
                seconds=time.perf_counter() - began,
            )
        )


def _place(progress: Progress) -> tuple[int, bool]:
    return progress.step, progress.validated


def _error(problem: str) -> TrainingError:
    return TrainingError(
        problem if problem.startswith(_CAUSES) else f"save: {problem}",
        code="save-failed",
        agreed=True,
        help="the checkpoints saved before are untouched; `resume` goes on from them",
    )
