"""The training loop of one rank: epochs, steps, validation, saves, and the agreed stop.

All ranks take every decision together: what a rank wants (to stop, to save, to close a window)
travels as flags in the reduction of a step, and holds for all at the end of that step.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from clusterseg.runs.eventlog import EventWriter
from clusterseg.runs.records import Phase
from clusterseg.spec.model import CheckpointSpec, TrainSpec
from clusterseg.train import not_finite, wishes
from clusterseg.train.assembly import Assembly
from clusterseg.train.batches import StepBatch, no_batch, step_batches
from clusterseg.train.board.points import iou_by_class
from clusterseg.train.board.scribe import Scribe
from clusterseg.train.communicator import Communicator
from clusterseg.train.failures import TrainingError, diverged, warn
from clusterseg.train.feeding import validation_batches
from clusterseg.train.first_masks import ignored_foreground
from clusterseg.train.progress import Progress, epoch_event
from clusterseg.train.saving import Saver
from clusterseg.train.schedule import base_learning_rate, learning_rate, rate_scale
from clusterseg.train.state import check_agreement, generator_seeds
from clusterseg.train.stopping import SOURCES, StopSources
from clusterseg.train.stragglers import StragglerWatch
from clusterseg.train.validation import validate
from clusterseg.train.waiting import DataWait
from clusterseg.train.windows import Windows

_WINDOW_SECONDS = 1.0
_CHECK_SECONDS = 300.0  # the longest time that ranks may differ unnoticed


class Loop:
    """Trains from `progress` on. `run` may be called once.

    `left_out` are steps (from 1) whose batch is read and which change nothing.
    """

    def __init__(
        self,
        *,
        spec: TrainSpec,
        checkpoint: CheckpointSpec,
        assembly: Assembly,
        progress: Progress,
        communicator: Communicator,
        saver: Saver,
        events: EventWriter,
        stops: StopSources,
        left_out: frozenset[int] = frozenset(),
        scribe: Scribe | None = None,
    ) -> None:
        self._spec = spec
        self._every = checkpoint.every
        self._assembly = assembly
        self.progress = progress
        self._communicator = communicator
        self._saver = saver
        self._events = events
        self._stops = stops
        self._data_wait = DataWait(stops, alone=communicator.size == 1)
        self._left_out = left_out
        self.scribe = scribe
        self._windows = Windows(communicator.rank)
        self._base_rate = base_learning_rate(spec.optimizer, assembly.batching.rate_factor)
        self._rate_scale = rate_scale(spec.optimizer, assembly.batching.rate_factor)
        self._sizes = {
            "global_batch": assembly.batching.global_batch,
            "epoch_samples": assembly.epoch_samples,
        }
        self._agreed_stop = [False] * len(SOURCES)
        self._resumed = (progress.step, progress.validated)
        self._changed = progress.step  # the last one that changed a weight
        self._give_up = False
        self._trained = False
        self._rate = 0.0
        self._checked = time.monotonic()
        self._stragglers = StragglerWatch(communicator, events)

    def run(self) -> str | None:
        """None if the training is done, else why it stopped, with everything saved.

        Raises TrainingError (agreed by all ranks), ClustersegError for data that can't be read,
        tf.errors.OpError.
        """
        self._check_agreement("at the start")
        self._windows.restart()
        finished = not self._agree()[0] and self._epochs()
        if finished:
            self._check_agreement("at the end")
        if self._resumed != (self.progress.step, self.progress.validated):
            if not finished:
                self._check_agreement(f"after step {self.progress.step}", quick=True)
            # With all steps done nothing presses, but a stop that is asked for now.
            self._saver.save(
                self.progress,
                hurry=lambda: not finished or any(self._stops.flags()),
                deadline=self._stops.deadline,
            )
        return None if finished else self._stops.reason(self._agreed_stop)

    def settle(self) -> None:
        """To be called when `run` failed: what was saved before is not to be lost with it."""
        self._saver.settle()

    def close(self) -> None:
        """Ends what still writes curves; after `run`, however it ended."""
        if self.scribe is not None:
            self.scribe.close()

    def _epochs(self) -> bool:
        """False if the ranks agreed to stop."""
        progress = self.progress
        if not progress.validated and not self._finish_epoch():
            return False
        while progress.epoch < self._spec.epochs:
            if not self._train_epoch() or not self._finish_epoch():
                return False
        return True

    def _train_epoch(self) -> bool:
        """From the current step to the epoch's end; False if the ranks agreed to stop."""
        progress, epoch = self.progress, self.progress.epoch
        place = {"epoch": epoch, "first": progress.samples_in_epoch}
        rank = self._communicator.rank
        with step_batches(self._spec, self._assembly, rank=rank, **place) as batches:
            while batches.left:
                began, before = time.perf_counter(), progress.step
                batch = batches.current(self._data_wait)
                wants_save = self._step(batch, time.perf_counter() - began)
                if progress.step > before:  # else it is the batch of the next one
                    batches.done()
                if any(self._agreed_stop):
                    return False
                if self._give_up:
                    self._saver.give_up()
                if wants_save and progress.epoch == epoch:  # an epoch's end is saved anyway
                    self._saver.begin(progress)
        return True

    def _step(self, batch: StepBatch | None, waited: float = 0.0) -> bool:
        """One optimizer step, on a batch waited for so many seconds; True if a save is due after
        it. Without a batch, on any rank, nothing happens but what all agree on."""
        progress, began = self.progress, time.perf_counter()
        rate = learning_rate(
            self._spec.schedule,
            self._base_rate,
            step=progress.position(self._assembly.steps_per_epoch, self._sizes["global_batch"]),
            steps_per_epoch=self._assembly.steps_per_epoch,
            epochs=self._spec.epochs,
            scale=self._rate_scale,
        )
        leaves_out = progress.step + 1 in self._left_out
        if leaves_out:
            agreed = self._leave_out(batch, waited)
        else:
            agreed = self._train_on(batch, rate, waited)
        self._agreed_stop, self._give_up = agreed.stops, agreed.give_up
        if agreed.void:
            self._saver.step_is_void()
            held = time.perf_counter() - began
            if batch is None:
                self._windows.held(wait_data=waited + held)
            else:
                self._windows.held(wait_data=waited, comm=held)  # in vain, for the others' sake
            if self._windows.steps and (agreed.give_up or any(agreed.stops)):
                self._cut(self._rate)
            return False
        self._rate = rate
        every = self._every.steps
        save = agreed.save or (every is not None and progress.step % every == 0)
        at_end = progress.step_in_epoch == 0
        ends = at_end or agreed.give_up or any(agreed.stops)
        # The first window is to hold the compilation, which a step that is left out does not need.
        due = agreed.cut if self._trained else not leaves_out
        if due or save or ends:
            self._cut(rate)
            if leaves_out and not self._trained:  # tells who watches that it is yet to come
                rank = self._communicator.rank
                self._events.write(Phase(t=time.time(), rank=rank, name="startup", seconds=0.0))
        self._trained = self._trained or not leaves_out
        if agreed.check or (save and not at_end):  # an epoch's end checks by itself
            self._check_agreement(f"after step {progress.step}", quick=True)
        return save

    def _cut(self, rate: float) -> None:
        """Closes the window after the last step, whose learning rate was `rate`."""
        progress = self.progress
        event = self._windows.cut(
            epoch=progress.epoch,
            step=progress.step,
            learning_rate=rate,
            loss_scale=self._loss_scale(),
        )
        progress.seconds += event.seconds
        progress.learning_rate = rate
        # Before any save: a kill in it must not lose the record of steps that it made durable.
        self._events.write(event)
        self._stragglers.add(event)
        if self.scribe:
            self.scribe.window(event)

    def _train_on(self, batch: StepBatch | None, rate: float, waited: float) -> wishes.Agreed:
        progress = self.progress
        own = self._wishes(void=batch is None)
        if batch is None and self._communicator.size == 1:
            return wishes.unpack(own.astype(np.float64))
        shown, began = batch or no_batch(self._assembly), time.perf_counter()
        outcome = self._assembly.train_step(
            shown.images,
            shown.labels,
            real=shown.real,
            learning_rate=rate,
            seeds=generator_seeds(
                self._spec.seed,
                progress.step,
                self._assembly.batching.first_of(self._communicator.rank),
                len(self._assembly.state.generators),
            ),
            flags=own,
            step=progress.step,
        )
        self._data_wait.stepped(time.perf_counter() - began - outcome.comm)
        agreed = wishes.unpack(outcome.flags)
        if agreed.void:
            return agreed
        sums = (outcome.loss_sum, outcome.weight_sum) if outcome.finite else (0.0, 0.0)
        if outcome.finite or outcome.overflowed:  # an overflow of float16 is part of its scaling
            progress.advance(*sums, **self._sizes)
        elif not_finite.is_left_to_the_next(self._spec.on_nan, stops=any(agreed.stops)):
            return replace(agreed, void=True)
        else:
            try:
                self._meet_not_finite(outcome.loss_sum)
            except TrainingError:
                if self._windows.steps:  # the good ones before it were done, and are to be told
                    self._cut(self._rate)
                raise
            progress.skip(**self._sizes)
        if outcome.finite:
            self._changed = progress.step
        if not self._trained and self._communicator.rank == 0:
            self._look_at(shown.labels.numpy())
        progress.images += outcome.images
        progress.skipped_steps += not outcome.finite
        self._windows.add(
            images=sum(shown.real),
            all_images=outcome.images,
            wait_data=waited,
            comm=outcome.comm,
            loss_sum=sums[0],
            weight_sum=sums[1],
            skipped=not outcome.finite,
            gradient_norm=outcome.gradient_norm,
        )
        return agreed

    def _look_at(self, labels: NDArray[np.int32]) -> None:
        """Tells what the first batch shows of the masks."""
        classes, ignore = self._assembly.classes, self._spec.loss.ignore
        if said := ignored_foreground(labels, classes=classes, ignore=ignore):
            warn(said)

    def _meet_not_finite(self, loss_sum: float) -> None:
        """The next step is not finite: raises TrainingError unless it is to be skipped."""
        on_nan, leads = self._spec.on_nan, self._communicator.rank == 0
        bad = self._assembly.state.not_finite()  # all hold the same, but must end together
        if self._communicator.agree([int(bad is not None)])[0]:
            tensor = bad or "a weight of another rank"
            not_finite.meet_weights(on_nan, self._changed, tensor, self._events, leads=leads)
        not_finite.meet(on_nan, self.progress, loss_sum, self._events, leads=leads)

    def _leave_out(self, batch: StepBatch | None, waited: float) -> wishes.Agreed:
        """What a step agrees on, asked for outside of one."""
        own = [int(wish) for wish in self._wishes(void=batch is None)]
        agreed = wishes.unpack(np.asarray(self._communicator.agree(own), np.float64))
        if not agreed.void:
            self.progress.skip(**self._sizes)
            self.progress.skipped_steps += 1
            self._windows.add(
                images=0,
                all_images=0,
                wait_data=waited,
                comm=0.0,
                loss_sum=0.0,
                weight_sum=0.0,
                skipped=True,
            )
        return agreed

    def _finish_epoch(self) -> bool:
        """Validates and saves; False if the ranks agreed to stop before the end of it."""
        progress, rank, size = self.progress, self._communicator.rank, self._communicator.size
        self._windows.leave()
        val_loss = val_accuracy = val_mean_iou = iou = None
        if len(self._assembly.dataset.validation):
            with validation_batches(
                self._spec, self._assembly, rank=rank, world_size=size
            ) as batches:
                result = validate(
                    batches,
                    self._assembly.evaluation_step,
                    self._communicator,
                    classes=self._assembly.classes,
                    agree=self._agree,
                    leave=self._data_wait,
                    look=self.scribe.look(progress.epoch) if self.scribe else None,
                    alive=self._events.touch,
                )
            if result is None:
                return False
            val_loss, val_accuracy, val_mean_iou = result.loss, result.accuracy, result.mean_iou
            iou = iou_by_class(self._assembly.dataset.class_names, result.iou)
        entry = progress.complete_epoch(
            val_loss,
            val_accuracy,
            val_mean_iou,
            iou=iou,
            loss_scale=self._loss_scale(),
            straggler_score=self._stragglers.compare(epoch=progress.epoch, step=progress.step),
        )
        rested = self._windows.enter()
        self._events.write(Phase(t=time.time(), rank=rank, name="validate", seconds=rested))
        if rank == 0:
            self._events.write(epoch_event(entry, time.time()))
        if self.scribe:
            self.scribe.epoch(progress.history)
        self._check_agreement(f"after epoch {progress.epoch}", quick=True)
        self._saver.begin(progress)
        return True

    def _loss_scale(self) -> float | None:
        scale = self._assembly.state.scale
        return None if scale is None else float(scale.value.numpy())

    def _wishes(self, *, void: bool) -> NDArray[np.float32]:
        leads = self._communicator.rank == 0
        cut = leads and self._windows.seconds >= _WINDOW_SECONDS
        check = leads and time.monotonic() - self._checked >= _CHECK_SECONDS
        give_up = self._saver.poll()
        save = leads and self._saver.due()
        stops = self._stops.flags()
        return wishes.pack(stops, cut=cut, save=save, check=check, give_up=give_up, void=void)

    def _agree(self, *more: int) -> tuple[bool, list[int]]:
        """Asks all ranks, outside of a step: whether to stop, and the largest of each of `more`."""
        own = [int(flag) for flag in self._stops.flags()]
        agreed = self._communicator.agree([*own, *more])
        self._agreed_stop = [bool(flag) for flag in agreed[: len(own)]]
        return any(self._agreed_stop), agreed[len(own) :]

    def _check_agreement(self, when: str, *, quick: bool = False) -> None:
        self._checked = time.monotonic()
        if self._communicator.size == 1:
            return
        problem = check_agreement(self._assembly.state, self._communicator, when, quick=quick)
        if problem:
            raise diverged(problem)
