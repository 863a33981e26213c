"""Fans independent Python work out over the cores of this host or over Slurm, through submitit.

A function is named (`package.module:function`), its arguments and its value are JSON: neither
closures nor pickled objects cross processes. Results come back in the order of the tasks;
what failed is tried once more, each task in a job of its own, and then named. What would surely
fail again (`ClustersegError.is_lasting`) is not; and where all tasks would, nothing is.
"""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from msgspec import Struct

from clusterseg.cluster.fanout_folder import Fault, Folder, Outcome, Share, Task, Work
from clusterseg.cluster.fanout_jobs import Executor, Job
from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.runs.paths import RunPaths

__all__ = ["Executor", "Failure", "FanOut", "Fault", "Progress", "Task", "fan_out"]

_TRIES = 2  # at a task
_LOOK = 1.0  # s
_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


class Failure(Struct, frozen=True, kw_only=True):
    """A task without a value. `last_lines`: of its traceback or its log, or what to do about it."""

    number: int
    name: str
    error: str
    last_lines: tuple[str, ...] = ()
    tries: int = 0


class Progress(Struct, frozen=True, kw_only=True):
    """Tasks: `done` have a value, `failed` have none and are not tried any more; `again` are tried
    once more. `note` says what is waited for, where that is known."""

    total: int
    done: int
    failed: int
    again: int
    note: str = ""


class FanOut(Struct, frozen=True, kw_only=True):
    """`values` by task, None for those in `failures`. `folder`: kept where something failed.

    `fault`: what is wrong with all tasks alike; the first that met it ended the others, and there
    is nothing to be seen in the folder. `problem`: jobs may still run, since they could not be
    cancelled, and why.
    """

    values: tuple[Any, ...]
    failures: tuple[Failure, ...] = ()
    fault: Fault | None = None
    interrupted: bool = False
    folder: str | None = None
    problem: str | None = None


def fan_out(
    run: RunPaths,
    function: str,
    tasks: Sequence[Task],
    executor: Executor,
    *,
    progress: Callable[[Progress], None] = lambda _: None,
) -> FanOut:
    """Calls `function` for each task and returns what came of it; never raises for a task.

    Ctrl-C (and SIGTERM, SIGHUP) cancels what is left and returns what there is. Raises
    ClustersegError if the run directory is not ours alone, if an argument is no JSON, or if no
    job could be started at all; nothing is left behind then.
    """
    if not _FUNCTION.fullmatch(function):
        raise ValueError(f"{function!r} is not `package.module:function`")
    folder = Folder.make(run, Work(function=function, tasks=tuple(tasks)))
    work = _Work(folder, tasks, executor, progress)
    interrupted = False
    try:
        with _interruptible():
            work.run()
    except KeyboardInterrupt:
        interrupted = True
        with _interruptible():
            work.cancel()
    except BaseException:
        work.cancel()
        folder.remove()
        raise
    failures = work.failures()
    to_see = bool(failures) and work.fault is None
    if not to_see and not work.problem:
        folder.remove()
    return FanOut(
        values=tuple(outcome.value if outcome else None for outcome in work.outcomes),
        failures=tuple(failures),
        fault=work.fault,
        interrupted=interrupted,
        folder=str(folder.path) if to_see or work.problem else None,
        problem=work.problem,
    )


class _Work:
    """The tasks of one fan-out on their way. `outcomes` by task: the last try's, None before one.

    `problem`: why jobs could not be cancelled.
    """

    def __init__(
        self,
        folder: Folder,
        tasks: Sequence[Task],
        executor: Executor,
        progress: Callable[[Progress], None],
    ) -> None:
        self.outcomes: list[Outcome | None] = [None] * len(tasks)
        self.problem: str | None = None
        self._tries = [0] * len(tasks)  # that have ended
        self._folder = folder
        self._tasks = tasks
        self._executor = executor
        self._progress = progress
        self._waiting: list[tuple[int, ...]] = []  # tasks, by the job to come
        self._live: list[Job] = []
        self._said: Progress | None = None

    def run(self) -> None:
        """Raises ClustersegError if the very first jobs can't be started."""
        everything = range(len(self._tasks))
        count = min(self._executor.slots, len(everything))
        # Shares rather than a job a task: each process pays its start (TensorFlow: seconds) once.
        self._waiting = [tuple(everything[first::count]) for first in range(count)]
        while self._waiting or self._live:
            self._start()
            self._tell()
            if self._live:
                time.sleep(_LOOK)
                self._look()
            if self.fault is not None:
                self.cancel()
                break
        self._tell()

    @property
    def fault(self) -> Fault | None:
        return next((one.fault for one in self.outcomes if one is not None and one.fault), None)

    def cancel(self) -> None:
        """Ends what runs; results that were written before count. Who can't wait may leave."""
        try:
            self._executor.cancel(self._live)
        except ClustersegError as error:
            self.problem = error.message
        except KeyboardInterrupt:
            self.problem = "interrupted again while they were being cancelled"
        for job in self._live:
            self._collect(job.share)

    def failures(self) -> list[Failure]:
        """The tasks without a value; what was never tried or not finished counts as cancelled."""
        return [
            Failure(
                number=number,
                name=task.name,
                error=outcome.error if outcome and outcome.error else "cancelled",
                last_lines=outcome.trace if outcome else (),
                tries=self._tries[number],
            )
            for number, (task, outcome) in enumerate(zip(self._tasks, self.outcomes, strict=True))
            if outcome is None or outcome.error is not None
        ]

    def _start(self) -> None:
        free = self._executor.slots - len(self._live)
        begun, self._waiting = self._waiting[:free], self._waiting[free:]
        if not begun:
            return
        shares = [tuple((number, self._tries[number]) for number in numbers) for numbers in begun]
        try:
            self._live += _started(self._executor, self._folder, shares)
        except ClustersegError as error:
            if not self._live and not any(self.outcomes):
                raise
            # What there is counts, and what failed before keeps its reason.
            self._waiting = []
            for number in (number for numbers in begun for number in numbers):
                self.outcomes[number] = self.outcomes[number] or Outcome(error=error.message)

    def _look(self) -> None:
        written = self._folder.ended()
        for job in self._live:
            self._collect(one for one in job.share if one in written)
        ended = self._executor.ended(self._live)
        over = [job for job in self._live if job.id in ended]
        self._live = [job for job in self._live if job.id not in ended]
        for job in over:
            self._collect(job.share)
            self._settle(job, ended[job.id])

    def _collect(self, tries: Iterable[tuple[int, int]]) -> None:
        """Takes the results of those tries that have one."""
        for number, turn in tries:
            if self._tries[number] > turn:
                continue  # taken before
            outcome = self._folder.outcome(number, turn)
            if outcome is not None:
                self.outcomes[number] = outcome
                self._tries[number] = turn + 1

    def _settle(self, job: Job, how: str) -> None:
        """The job has ended: what it left undone has failed, or was never its turn; what failed
        is tried again alone, so that nothing else dies with it."""
        began = [self._folder.has_begun(number, turn) for number, turn in job.share]
        for (number, turn), begun in zip(job.share, began, strict=True):
            if self._tries[number] == turn and (begun or not any(began)):
                self._tries[number] = turn + 1
                self.outcomes[number] = Outcome(
                    error=f"no result: {how or 'it was killed, or ended by itself'}",
                    trace=job.last_lines(),
                )
            if is_tried_again(self.outcomes[number], self._tries[number]):
                self._waiting.append((number,))

    def _tell(self) -> None:
        again = [
            is_tried_again(outcome, tries)
            for tries, outcome in zip(self._tries, self.outcomes, strict=True)
            if outcome is not None and outcome.error is not None
        ]
        now = Progress(
            total=len(self._tasks),
            done=sum(1 for one in self.outcomes if one is not None and one.error is None),
            failed=again.count(False),
            again=again.count(True),
            note=self._executor.note,
        )
        if now != self._said:
            self._said = now
            self._progress(now)


def is_tried_again(outcome: Outcome | None, tries: int) -> bool:
    """Whether a task is tried again after so many tries, the last one with `outcome` (None: its
    job ended before its turn)."""
    if outcome is None:
        return tries < _TRIES
    return outcome.error is not None and not outcome.is_lasting and tries < _TRIES


def _started(executor: Executor, folder: Folder, shares: Sequence[Share]) -> list[Job]:
    """Raises ClustersegError also where the disk is full, or the host has no more processes."""
    try:
        return executor.start(folder, shares)
    except OSError as error:
        where = error.filename or folder.path
        raise ClustersegError(
            f"no job can be started: {where}: {error.strerror or error}",
            code="no-jobs",
            exit_code=ExitCode.FAILED,
        ) from error


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM and SIGHUP do what Ctrl-C does, unless they are ignored (nohup) or handled."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    ours = [
        number
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is signal.SIG_DFL
    ]
    for number in ours:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
