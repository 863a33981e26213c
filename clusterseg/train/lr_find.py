"""The learning rate range test on the ranks: a sweep over the rates for each optimizer.

The loss of a step is that of the global batch, the same on all ranks bit for bit, and the curve a
pure function of it (`lr_curve`): all ranks end a sweep at the same step without asking each other.
Nothing is saved but what was found.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import replace

import msgspec

from clusterseg.data import open_dataset
from clusterseg.data.balance import balanced_weights
from clusterseg.runs.claims import is_superseded
from clusterseg.runs.eventlog import EventWriter
from clusterseg.runs.files import replace as replace_file
from clusterseg.runs.lr_find import Ending, LrFind, Suggestion, Sweep, read_lr_find, write_lr_find
from clusterseg.runs.records import Phase
from clusterseg.spec.model import TrainSpec
from clusterseg.train import wishes
from clusterseg.train.assembly import Assembly, assemble, count_classes
from clusterseg.train.batches import no_batch, sweep_batches
from clusterseg.train.batching import fresh
from clusterseg.train.communicator import Communicator
from clusterseg.train.failures import TrainingError, describe_os_error, diverged
from clusterseg.train.job import RankJob
from clusterseg.train.lr_curve import Curve, rates
from clusterseg.train.progress import Progress
from clusterseg.train.restoring import restore
from clusterseg.train.state import check_agreement, generator_seeds
from clusterseg.train.step import StepOutcome
from clusterseg.train.stopping import StopSources
from clusterseg.train.unreadable import Unreadable
from clusterseg.train.waiting import DataWait
from clusterseg.train.windows import Windows

_WINDOW_SECONDS = 1.0


class LrFinder:
    """The sweeps that a job asks for; `run` may be called once. `progress` counts their steps."""

    def __init__(
        self,
        job: RankJob,
        communicator: Communicator,
        events: EventWriter,
        stops: StopSources,
        *,
        threads: int,
    ) -> None:
        if job.lr_find is None:
            raise ValueError("the plan says no range")
        self._job, self._range = job, job.lr_find
        self._communicator = communicator
        self._events = events
        self._stops = stops
        self._data_wait = DataWait(stops, alone=communicator.size == 1)
        self._threads = threads
        self._windows = Windows(communicator.rank)
        self.progress = Progress()
        self._sweeps: dict[str, Sweep] = {}
        self._unreadable = Unreadable()  # of all sweeps: what one found, the next ones know

    def run(self) -> str | None:
        """None if every optimizer had its sweep, else why it stopped; what was found is written.

        Raises TrainingError (agreed by all ranks), ClustersegError for data that can't be read,
        tf.errors.OpError.
        """
        self._take_over()
        spec = self._with_weights(self._job.train)
        reason = None
        for name in self._range.optimizers:
            if name in self._sweeps:
                continue
            agreed = self._communicator.agree([int(flag) for flag in self._stops.flags()])
            if any(agreed):
                reason = self._stops.reason([bool(flag) for flag in agreed])
                break
            reason = self._sweep(name, spec)
            gc.collect()  # a model and its graph are rings of references
            if reason is not None:
                break
        self._report()
        return reason

    def settle(self) -> None:
        """As `Loop.settle`: a sweep that ended is written already."""

    def close(self) -> None:
        """As `Loop.close`: nothing is written in the background."""

    def _sweep(self, name: str, spec: TrainSpec) -> str | None:
        """One optimizer, from the weights that the job begins with; why it stopped, if it did."""
        began = time.perf_counter()
        # The further options of the job's optimizer mean nothing to another one.
        options = spec.optimizer.options if name == spec.optimizer.name else {}
        optimizer = msgspec.structs.replace(spec.optimizer, name=name, options=options)
        spec = msgspec.structs.replace(spec, optimizer=optimizer)
        assembly = assemble(
            spec,
            self._communicator,
            flags=wishes.COUNT,
            threads=self._threads,
            alive=self._events.touch,
        )
        assembly = replace(assembly, unreadable=self._unreadable)
        restore(
            self._job.paths,
            self._job.claim,
            assembly.state,
            self._communicator,
            identity=assembly.identity,
            initial_weights=spec.initial_weights,
        )
        self._check_agreement(assembly, f"before the sweep of {name}")
        rank = self._communicator.rank
        self._events.write(
            Phase(t=time.time(), rank=rank, name="startup", seconds=time.perf_counter() - began)
        )
        self._windows.restart()
        began = time.perf_counter()
        curve, ended, reason = self._steps(spec, assembly)
        self._sweeps[name] = self._found(name, curve, ended, time.perf_counter() - began)
        if ended is not Ending.NOT_FINITE:  # which bits a NaN has depends on the order of a sum
            self._check_agreement(assembly, f"after the sweep of {name}")
        self._share(self._write)
        return reason

    def _steps(self, spec: TrainSpec, assembly: Assembly) -> tuple[Curve, Ending, str | None]:
        curve, ended, reason = Curve(), None, None
        rank, generators = self._communicator.rank, len(assembly.state.generators)
        steps = rates(self._range.lowest, self._range.highest, self._range.steps)
        first = assembly.batching.first_of(rank)
        rate = steps[0]
        with sweep_batches(spec, assembly, steps=len(steps), rank=rank) as batches:
            while batches.left and ended is None:
                step, waiting = len(steps) - batches.left, time.perf_counter()
                batch = batches.current(self._data_wait)
                waited = time.perf_counter() - waiting
                shown = batch or no_batch(assembly)
                cut = rank == 0 and self._windows.seconds >= _WINDOW_SECONDS
                outcome = assembly.train_step(
                    shown.images,
                    shown.labels,
                    real=shown.real,
                    learning_rate=steps[step],
                    seeds=generator_seeds(spec.seed, step, first, generators),
                    flags=wishes.pack(self._stops.flags(), cut=cut, void=batch is None),
                    step=step,
                )
                spent = time.perf_counter() - waiting - waited
                self._data_wait.stepped(spent - outcome.comm)
                agreed = wishes.unpack(outcome.flags)
                if agreed.void:  # a rank has no data
                    self._windows.held(wait_data=waited)
                else:
                    rate = steps[step]
                    ended = self._count(curve, rate, outcome, sum(shown.real), waited)
                    batches.done()
                if any(agreed.stops):
                    ended, reason = Ending.STOPPED, self._stops.reason(agreed.stops)
                # The first step holds the making of the graph.
                is_first, over = step == 0, ended is not None or not batches.left
                if self._windows.steps and (over or is_first or agreed.cut):
                    self._events.write(
                        self._windows.cut(epoch=0, step=self.progress.step, learning_rate=rate)
                    )
        return curve, ended or Ending.WHOLE_RANGE, reason

    def _count(
        self, curve: Curve, rate: float, outcome: StepOutcome, images: int, waited: float
    ) -> Ending | None:
        """A step that came about; how the sweep ends with it, if it does."""
        self.progress.step += 1
        self._windows.add(
            images=images,
            all_images=outcome.images,
            wait_data=waited,
            comm=outcome.comm,
            loss_sum=outcome.loss_sum,
            weight_sum=outcome.weight_sum,
            skipped=not outcome.finite,
            gradient_norm=outcome.gradient_norm,
        )
        # The loss may be finite, and a gradient not: nothing was trained. (An overflow of float16
        # lowers the scale, and the sweep goes on.)
        ended = None
        if outcome.weight_sum:  # else no pixel of the batch has a label
            ended = curve.add(rate, outcome.loss_sum / outcome.weight_sum)
        return ended if outcome.finite or outcome.overflowed else Ending.NOT_FINITE

    def _found(self, name: str, curve: Curve, ended: Ending, seconds: float) -> Sweep:
        found = curve.suggestion() if ended is not Ending.STOPPED else "it was asked to stop"
        suggestion = None if isinstance(found, str) else found
        if isinstance(suggestion, Suggestion):
            scaled = self._job.train.optimizer.scale_with_ranks
            setting = suggestion.learning_rate / (self._communicator.size if scaled else 1)
            suggestion = msgspec.structs.replace(suggestion, setting=setting)
        return Sweep(
            optimizer=name,
            ended=ended,
            attempt=self._job.claim.attempt,
            seconds=seconds,
            suggestion=suggestion,
            why=found if isinstance(found, str) else None,
            rates=curve.rates,
            losses=curve.losses,
            smooth_rates=curve.smooth_rates,
            smooth_losses=curve.smooth_losses,
        )

    def _take_over(self) -> None:
        """Whole sweeps of earlier attempts count: each is independent of the others."""
        kept: list[Sweep] = []
        if self._communicator.rank == 0 and self._job.claim.attempt > 0:
            found = read_lr_find(self._job.paths)
            kept = [] if found is None else found.sweeps
        text = self._communicator.broadcast_text(msgspec.json.encode(kept).decode())
        for sweep in msgspec.json.decode(text, type=list[Sweep]):
            if sweep.ended is not Ending.STOPPED and sweep.optimizer in self._range.optimizers:
                self._sweeps[sweep.optimizer] = sweep

    def _with_weights(self, spec: TrainSpec) -> TrainSpec:
        """`balanced` as numbers: counting reads every mask, which is done once for all sweeps."""
        if spec.loss.class_weights != "balanced" or len(self._range.optimizers) < 2:
            return spec
        dataset = open_dataset(spec.data, spec.loss.ignore)
        classes = spec.model.classes or dataset.classes
        counts = count_classes(spec, dataset, classes, self._communicator, self._events.touch)
        loss = msgspec.structs.replace(spec.loss, class_weights=balanced_weights(counts))
        return msgspec.structs.replace(spec, loss=loss)

    def _check_agreement(self, assembly: Assembly, when: str) -> None:
        if self._communicator.size == 1:
            return
        problem = check_agreement(assembly.state, self._communicator, when)
        if problem:
            raise diverged(problem)

    def _whole(self) -> LrFind:
        spec = self._job.train
        return LrFind(
            run=self._job.paths.run_id,
            t=time.time(),
            ranks=self._communicator.size,
            global_batch=fresh(spec, self._communicator.size).global_batch,
            scale_with_ranks=spec.optimizer.scale_with_ranks,
            sweeps=[self._sweeps[name] for name in self._range.optimizers if name in self._sweeps],
        )

    def _report(self) -> None:
        if self._sweeps:
            self._share(self._draw)

    def _write(self) -> None:
        write_lr_find(self._job.paths, self._whole())

    def _draw(self) -> None:
        from clusterseg.train.lr_plot import draw

        replace_file(self._job.paths.lr_find_plot, draw(self._whole()))

    def _share(self, work: Callable[[], None]) -> None:
        """Rank 0 does the work; all ranks raise TrainingError alike if it can't."""
        problem = ""
        if self._communicator.rank == 0:
            try:
                if is_superseded(self._job.paths, self._job.claim):
                    problem = "save: a newer attempt was claimed: nothing is written"
                else:
                    work()
            except OSError as error:
                problem = describe_os_error(error, "writing what lr-find found")
        problem = self._communicator.broadcast_text(problem)
        if problem:
            raise TrainingError(
                problem,
                code="save-failed",
                agreed=True,
                help="make room or mend the file system, then start lr-find anew",
            )
