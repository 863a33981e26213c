"""Saves checkpoints while the training goes on: rank 0 copies, and a thread of it writes.

Only the copy is in the way of a step. What becomes of the file shows later: rank 0 looks after
each step (`poll`), and what the others must know travels as a wish of it in the next reduction,
or is told by `save`, which all ranks call at the same place.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import NoReturn

from clusterseg.runs.eventlog import EventWriter
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Checkpoint, Claim, Phase
from clusterseg.spec.model import CheckpointSpec
from clusterseg.train.batching import Batching
from clusterseg.train.communicator import Communicator
from clusterseg.train.failures import FailureKind, SaveFailure, TrainingError, say, warn
from clusterseg.train.interval import Interval, Slowdown
from clusterseg.train.not_finite import tell_weights
from clusterseg.train.one_save import Place, Save, place_of
from clusterseg.train.progress import Progress
from clusterseg.train.saving_policy import Act, SavingPatience, Trouble, after_failures
from clusterseg.train.snapshot import Snapshot
from clusterseg.train.state import TrainState
from clusterseg.train.store import CheckpointStore, Written
from clusterseg.train.tries import Tries
from clusterseg.train.writer import Writer

_CAUSES = ("disk full:", "i/o error:", "nan:", "out of memory:")
_AGAIN = "again"  # what rank 0 tells the others when it is going to try once more
_LAST_WRITE = 120.0  # seconds for the write under way when the attempt fails


class Saver:
    """All ranks call `begin`, `save` and `give_up` at the same steps; only rank 0 writes.

    A save that fails for the disk's sake is tried again later while the training goes on: of the
    state by then, but an epoch's end, which never comes again, of what it was. `seed`,
    `batching`, `identity` and `schedule` are the parts of the header that are the same in all
    checkpoints of the attempt. `on_nan`: what follows if weights are not finite. `first`, called in
    the writer's thread, returns when what must be on the disk before a checkpoint is there.
    `expect` is told, on every rank before it waits for a save, how long the longest took.
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
        batching: Batching,
        identity: dict[str, str],
        schedule: dict[str, float | int | str],
        on_nan: str = "stop",
        patience: SavingPatience | None = None,
        interval: Interval | None = None,
        first: Callable[[], None] = lambda: None,
        expect: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self._claim = claim
        self._communicator = communicator
        self._events = events
        self._seed = seed
        self._batching = batching
        self._identity = identity
        self._schedule = schedule
        self._on_nan = on_nan
        self._snapshot = Snapshot(state)
        self._store = CheckpointStore(paths, claim, spec, first)
        self._writer: Writer[Written | None] = Writer()
        self._save: Save | None = None
        self._durable: Place | None = None
        self._failed: Save | None = None
        self._last_write = self._longest = 0.0
        self._expect = expect
        self._patience = patience or SavingPatience()
        self._interval = interval or Interval(spec.every)
        self._slowdown = Slowdown()
        self._step_began: float | None = None
        self._step_beside = False
        self._troubles: list[Trouble] = []
        self._retry_at: float | None = None
        self._owed = False  # the save under way was an older one's turn
        self._problem = ""
        if communicator.rank == 0:
            self._writer.start(self._prepare)

    def due(self) -> bool:
        """Whether rank 0 wants to save after the next step: by time, or once more."""
        if self._save is not None or self._problem:
            return False
        retry = self._retry_at is not None and time.monotonic() >= self._retry_at
        return retry or self._interval.due()

    def begin(self, progress: Progress) -> None:
        """Copies the state and has it written; waits only for the write before, if there is one.

        An epoch's end whose save failed is written in its place, and the state after the next
        step. It holds a step up only if another epoch has ended meanwhile: then it is tried once
        more, and let go of. Talks to no other rank.
        """
        began = time.perf_counter()
        if self._communicator.rank == 0:
            self._take(self._writer.wait())
            if not self._problem:  # else all ranks end after the next step
                self._begin(progress, began)
        self._step_began = None
        self._note_phase(began)

    def poll(self) -> bool:
        """Whether rank 0 gives up; tells what became of the write under way. Never blocks.

        To be called before each step.
        """
        if self._communicator.rank != 0:
            return False
        now = time.perf_counter()
        if self._step_began is not None:
            self._slowdown.step(now - self._step_began, saving=self._step_beside)
        self._take(self._writer.result())
        self._step_began, self._step_beside = now, self._save is not None
        self._interval.stepped()
        return bool(self._problem)

    def step_is_void(self) -> None:
        """The step since the last `poll` waited for data: it tells nothing of what a save costs."""
        self._step_began = None

    def save(
        self,
        progress: Progress,
        hurry: Callable[[], bool] = lambda: True,
        deadline: Callable[[], float | None] = lambda: None,
    ) -> None:
        """Returns when a checkpoint of `progress` is durable, begun before or not.

        What fails is tried again, for long unless there is a `hurry`; then until shortly before
        its `deadline` (unix seconds), if somebody knows that, else three times. Raises
        TrainingError on all ranks alike if it could not be saved on rank 0.
        """
        # Saves in the background took as long and were seen on rank 0 alone.
        self._expect(self._communicator.agree([math.ceil(self._longest)])[0])
        tries = Tries(self._patience, hurry, deadline, self._last_write)
        answer = _AGAIN
        while answer == _AGAIN:
            began = time.perf_counter()
            if self._communicator.rank == 0:
                tries.wait()
                answer = self._try(progress, began, tries)
            answer = self._communicator.broadcast_text(answer)
            self._note_phase(began)  # a sign of life of all ranks, too
        if answer:
            raise _error(answer)

    def give_up(self) -> NoReturn:
        """Raises the TrainingError that rank 0 has for all; all ranks call it."""
        raise _error(self._communicator.broadcast_text(self._problem))

    def settle(self) -> None:
        """Lets the write under way come to its end: the attempt fails, but not the step saved."""
        if self._communicator.rank == 0:
            with suppress(OSError):
                self._take(self._writer.wait(_LAST_WRITE))

    def _prepare(self) -> None:
        self._snapshot.prepare()
        with suppress(OSError):
            self._store.look_ahead(self._snapshot.bytes)

    def _begin(self, progress: Progress, began: float) -> None:
        end = self._failed
        if end is not None and end.is_epochs_end:
            self._start(end, self._patience.reserve)
            if not progress.at_validated_end:
                self._owed = True
                return
            self._take(self._writer.wait())
            if self._problem:
                return
            self._let_go(self._failed)
        self._start(self._copy(progress, began), self._patience.reserve)

    def _let_go(self, save: Save | None) -> None:
        """Its memory is needed for another one."""
        if save is not None and save.is_epochs_end:
            warn(f"{save.name} could not be saved and is missing among the best epochs")

    def _try(self, progress: Progress, began: float, tries: Tries) -> str:
        """Empty if the place is durable, _AGAIN, or the problem. Waits for the disk."""
        place = place_of(progress)
        self._take(self._writer.wait())
        if self._durable == place:
            return ""
        # The same bytes once more: a file may have got its name before the disk said no.
        save = self._failed
        if save is None or save.place != place:
            self._let_go(save)
            save = self._copy(progress, began)
        self._start(save, 0)  # the last chance of these steps: better without room for logs
        outcome = self._writer.wait()
        if not isinstance(outcome, BaseException):
            self._take(outcome)
            return ""
        self._save, self._failed = None, save
        failure = self._failure(save, outcome)
        return failure.message if tries.are_over_after(failure) else _AGAIN

    def _copy(self, progress: Progress, began: float) -> Save:
        begin_copy = time.perf_counter()
        tensors = self._snapshot.take()
        copied = time.perf_counter()
        header = progress.to_header(
            attempt=self._claim.attempt,
            t=time.time(),
            seed=self._seed,
            batching=self._batching,
            identity=self._identity,
            schedule=self._schedule,
            times=self._times(copied - begin_copy),
        )
        name = progress.checkpoint_name
        return Save(
            place_of(progress),
            name,
            header,
            tensors,
            blocked=copied - began,
            is_epochs_end=progress.at_validated_end,
        )

    def _times(self, copy: float) -> dict[str, float]:
        known = {"interval": self._interval.seconds, "cost": self._interval.cost}
        times = {"copy": copy, "write_before": self._last_write}
        return times | {name: value for name, value in known.items() if value is not None}

    def _start(self, save: Save, reserve: int) -> None:
        self._save, self._failed, self._retry_at, self._owed = save, None, None, False
        self._interval.begun()
        self._writer.start(
            partial(self._store.write, save.name, save.header, save.tensors, reserve=reserve)
        )

    def _take(self, outcome: Written | BaseException | None) -> None:
        """What the writer came to: the event of a checkpoint, or a problem."""
        save = self._save
        if outcome is None or save is None:  # under way, or no save at all
            return
        self._save = None
        if isinstance(outcome, BaseException):
            self._failed = save
            self._postpone(self._failure(save, outcome))
            return
        self._durable = save.place
        if self._owed:
            self._owed, self._retry_at = False, time.monotonic()
        self._last_write = outcome.seconds
        self._longest = max(self._longest, save.blocked + outcome.seconds)
        self._interval.saved(save.blocked + self._slowdown.take())
        if self._troubles:
            say(f"step {save.header.step} is saved, after {len(self._troubles)} failed saves")
            self._troubles.clear()
        if news := self._interval.news():
            say(news)
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

    def _failure(self, save: Save, error: BaseException) -> SaveFailure:
        failure = save.failure(error)
        if failure.kind is FailureKind.NOT_FINITE:  # for the next attempt to leave the step out
            tell_weights(self._on_nan, save.header.step, self._events)
        return failure

    def _postpone(self, failure: SaveFailure) -> None:
        now = time.monotonic()
        self._troubles.append(Trouble(failure.kind, now))
        following = after_failures(self._troubles, self._patience)
        if following.act is Act.GIVE_UP:
            self._problem = failure.message
            return
        self._retry_at = following.at
        warn(
            f"{failure.message}; the training goes on, the checkpoints saved before are "
            f"untouched, next try in {following.at - now:.0f} s at the latest"
        )

    def _note_phase(self, began: float) -> None:
        self._events.write(
            Phase(
                t=time.time(),
                rank=self._communicator.rank,
                name="save",
                seconds=time.perf_counter() - began,
            )
        )


def _error(problem: str) -> TrainingError:
    return TrainingError(
        problem if problem.startswith(_CAUSES) else f"save: {problem}",
        code="save-failed",
        agreed=True,
        help="the checkpoints saved before are untouched; `resume` goes on from them",
    )
