"""Following the logs of a run as they grow.

Files are followed, over restarts and requeues. The scheduler is asked once a minute only, and
only while the records don't say that the run is over: for a job that was killed without a word.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from pathlib import Path

from clusterseg.cli.ending import Patience, never_started
from clusterseg.cli.log_view import (
    BATCH,
    CHUNK,
    SUPERVISOR,
    LogChoice,
    LogPrinter,
    show_logs,
    split_lines,
    tell_placement,
)
from clusterseg.cli.output import note, safe_lines
from clusterseg.cluster.look import Eyes
from clusterseg.runs.attempts import Attempt, attempt_numbers, read_attempt
from clusterseg.runs.eventlog import ByteStream, open_regular
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.snapshot import Snapshot
from clusterseg.runs.store import iter_submissions

LOOK = 0.5  # seconds between two looks at growing files
SCHEDULER = 60.0  # seconds between two questions to the scheduler


def follow_logs(run: RunPaths, choice: LogChoice, printer: LogPrinter) -> None:
    """Prints logs as they grow, over restarts, until the run (or the given attempt) is over.

    A run whose ranks print nothing at all is shown as `show_logs` does. Raises ClustersegError
    where nobody starts the run.
    """
    printer.named = not choice.supervisor
    follower = LogFollower(run, choice, printer)
    lookout = _Lookout(run)
    while True:
        last = lookout.last()  # before the reading: what is over is read to its end
        over = last is not None or _has_ended(run, choice.attempt)
        follower.read()
        if over:
            break
        lookout.wait(LOOK)
    follower.finish()
    if not printer.printed:
        show_logs(run, choice, printer)
    if last is not None and last.verdict.not_started:
        raise never_started(last)


class _Lookout:
    """Looks at a run in a thread of its own: the lines must not wait for Slurm's answers."""

    def __init__(self, run: RunPaths) -> None:
        self._run = run
        self._over = threading.Event()
        self._last: Snapshot | None = None
        self._error: Exception | None = None
        # One that still waits for Slurm does not hold up who leaves.
        threading.Thread(target=self._look_until_over, daemon=True).start()

    def last(self) -> Snapshot | None:
        """The look at which the run was over; None before. Raises what looking raised."""
        if self._error is not None:
            raise self._error
        return self._last

    def wait(self, seconds: float) -> None:
        """Waits for so long, or until the run is over."""
        self._over.wait(seconds)

    def _look_until_over(self) -> None:
        eyes = Eyes(max_age=SCHEDULER)
        patience = Patience(eyes)
        try:
            while not patience.is_over(snapshot := eyes.look(self._run)):
                time.sleep(LOOK)
            self._last = snapshot
        except Exception as error:  # raised again where the lines are printed
            self._error = error
        self._over.set()


class LogFollower:
    """The logs that are followed: those of the first attempt seen and of all after it.

    `tells_placement`: which ranks do not stand as planned is noted, too.
    """

    def __init__(
        self,
        run: RunPaths,
        choice: LogChoice,
        printer: LogPrinter,
        *,
        tells_placement: bool = True,
    ) -> None:
        self._run = run
        self._tells_placement = tells_placement
        self._choice = choice
        self._printer = printer
        self._first = choice.attempt
        if self._first is None:
            self._first = max(attempt_numbers(run), default=None)
        self._growing: dict[Path, _Growing] = {}
        self._finished: set[int] = set()
        self._placed: set[int] = set()  # attempts whose placement was told of

    def read(self) -> None:
        numbers = attempt_numbers(self._run)
        if self._first is None:
            # Once more with the first attempt: what the set-up said last stands before it.
            self._read_batch_output()
            self._first = min(numbers, default=None)
        if self._first is None:
            return
        for number in numbers:
            later = self._choice.attempt is None and number > self._first
            if number == self._first or later:
                self._read_attempt(number)

    def finish(self) -> None:
        """Prints last lines that have no end."""
        for growing in self._growing.values():
            growing.finish(self._printer)

    def _read_attempt(self, number: int) -> None:
        if number in self._finished:
            return
        attempt = read_attempt(self._run.attempt(number))
        if attempt is None:
            return
        # What has an end when its logs are read grows no more.
        if attempt.end is not None:
            self._finished.add(number)
        if attempt.packed:
            self._read_packed(attempt)
        elif self._choice.supervisor:
            self._grow(attempt.paths.supervisor_log, number, SUPERVISOR).read(self._printer)
        else:
            untold = self._tells_placement and number not in self._placed
            if untold and tell_placement(attempt):
                self._placed.add(number)
            for rank in filter(self._choice.wants, attempt.log_ranks()):
                self._grow(attempt.paths.log(rank), number, rank).read(self._printer)

    def _read_packed(self, attempt: Attempt) -> None:
        """What an attempt still wrote before it was packed."""
        paths, number = attempt.paths, attempt.number
        try:
            if self._choice.supervisor:
                with attempt.open(paths.supervisor_log.name) as stream:
                    growing = self._grow(paths.supervisor_log, number, SUPERVISOR)
                    growing.read_packed(stream, self._printer)
                return
            for rank, stream in attempt.logs():
                if self._choice.wants(rank):
                    growing = self._grow(paths.log(rank), number, rank)
                    growing.read_packed(stream, self._printer)
        except OSError as error:
            note(f"note: {error}")

    def _read_batch_output(self) -> None:
        submissions = iter_submissions(self._run)
        if submissions:
            self._grow(submissions[-1].output, None, BATCH).read(self._printer)

    def _grow(self, path: Path, attempt: int | None, source: int | str) -> _Growing:
        if path not in self._growing:
            self._growing[path] = _Growing(path, attempt, source)
        return self._growing[path]


class _Growing:
    """A log file that is followed; whole lines are printed."""

    def __init__(self, path: Path, attempt: int | None, source: int | str) -> None:
        self._path = path
        self._attempt = attempt
        self._source = source
        self._offset = 0
        self._rest = b""
        self._first = True

    def read(self, printer: LogPrinter) -> None:
        """Prints what was added since the last call; a file that is gone adds nothing."""
        try:
            # A fresh open: network file systems show a writer's data at open.
            with open_regular(self._path) as stream:
                if self._first and printer.lines is not None:
                    self._offset = _offset_of_last(stream, printer.lines)
                self._first = False
                stream.seek(self._offset)
                while chunk := stream.read(CHUNK):
                    self._offset += len(chunk)
                    self._print(chunk, printer)
        except FileNotFoundError:
            return
        except OSError as error:
            note(f"note: {self._path}: {error.strerror or error}")

    def finish(self, printer: LogPrinter) -> None:
        """Prints a last line that has no end."""
        if self._rest:
            printer.show(self._attempt, self._source, safe_lines(self._rest))
            self._rest = b""

    def read_packed(self, stream: ByteStream, printer: LogPrinter) -> None:
        """Goes on in the packed form of the same log."""
        position = 0
        while chunk := stream.read(CHUNK):
            new = chunk[max(0, self._offset - position) :]
            position += len(chunk)
            self._print(new, printer)
        self._offset = max(self._offset, position)

    def _print(self, chunk: bytes, printer: LogPrinter) -> None:
        lines, self._rest = split_lines(self._rest, chunk)
        if lines:
            printer.show(self._attempt, self._source, lines)


def _has_ended(run: RunPaths, number: int | None) -> bool:
    if number is None:
        return False
    attempt = read_attempt(run.attempt(number))
    return attempt is not None and attempt.end is not None


def _offset_of_last(stream: ByteStream, count: int) -> int:
    """Where the last `count` lines begin."""
    ends: deque[int] = deque([0], maxlen=count + 1)
    position = 0
    while chunk := stream.read(CHUNK):
        start = 0
        while (found := chunk.find(b"\n", start)) >= 0:
            start = found + 1
            ends.append(position + start)
        position += len(chunk)
    if ends[-1] != position:  # a last line without end is a line
        ends.append(position)
    return ends[0]
