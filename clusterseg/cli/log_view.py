"""Printing the logs of a run that are there, safely."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import msgspec

from clusterseg.cli.output import note, safe, safe_lines
from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.runs.attempts import Attempt, attempt_numbers, iter_attempts, read_attempt
from clusterseg.runs.eventlog import ByteStream, open_regular
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.placement import read_check
from clusterseg.runs.store import iter_submissions

SUPERVISOR = "supervisor"
BATCH = "batch script"
CHUNK = 1 << 16
_LONGEST = 1 << 20  # bytes of a line without end that are held before they are printed


@dataclass(frozen=True)
class LogChoice:
    """Which logs: of one attempt or the last ones, of some ranks or all, or the supervisor's."""

    attempt: int | None = None
    ranks: frozenset[int] | None = None
    supervisor: bool = False

    def wants(self, rank: int) -> bool:
        return self.ranks is None or rank in self.ranks


@dataclass
class LogPrinter:
    """Prints lines of several logs, named where more than one can be meant.

    `lines`: how many of each log, from its end; None: all.
    """

    as_json: bool
    lines: int | None
    named: bool = False
    printed: bool = field(default=False, init=False)

    def show(self, attempt: int | None, source: int | str, lines: Iterable[str]) -> None:
        """Prints lines of one log. `source` is a rank, or what else wrote them."""
        self.printed = True
        if self.as_json:
            for text in lines:
                entry = {"attempt": attempt, "source": source, "text": text}
                sys.stdout.buffer.write(msgspec.json.encode(entry) + b"\n")
            sys.stdout.buffer.flush()
            return
        prefix = f"[{source}] " if self.named else ""
        for text in lines:
            sys.stdout.write(f"{prefix}{text}\n")
        sys.stdout.flush()


def show_logs(run: RunPaths, choice: LogChoice, printer: LogPrinter) -> None:
    """Prints what there is. Raises ClustersegError if what was asked for is not there."""
    chosen = _choose(run, choice.attempt)
    if chosen is None:
        _show_batch_output(run, printer)
    elif choice.supervisor:
        _show_supervisor(chosen, printer)
    else:
        _show_ranks(run, chosen, choice.ranks, printer)


def split_lines(rest: bytes, chunk: bytes) -> tuple[list[str], bytes]:
    """The lines that end in `chunk`, after `rest` of an earlier one; and the new rest."""
    whole, newline, rest = (rest + chunk).rpartition(b"\n")
    if len(rest) > _LONGEST:
        whole, newline, rest = whole + newline + rest, b"\n", b""
    return (safe_lines(whole) if newline else []), rest


def tell_placement(attempt: Attempt) -> bool:
    """Notes which ranks do not stand as planned; whether that is known."""
    found = read_check(attempt)
    for problem in found.problems if found else ():
        note(f"note: attempt {attempt.number}: placement: {safe(problem)}")
    return found is not None


def _choose(run: RunPaths, number: int | None) -> Attempt | None:
    """The attempt asked for, or the last one with a rank's log, or the last one."""
    if number is not None:
        chosen = read_attempt(run.attempt(number))
        if chosen is None:
            known = ", ".join(map(str, attempt_numbers(run))) or "none yet"
            raise ClustersegError(
                f"{run.run_id} has no attempt {number}",
                code="no-attempt",
                help=f"its attempts: {known}",
            )
        return chosen
    attempts = list(iter_attempts(run))
    spoken = (attempt for attempt in reversed(attempts) if attempt.log_ranks())
    return next(spoken, attempts[-1] if attempts else None)


def _show_ranks(
    run: RunPaths, attempt: Attempt, ranks: frozenset[int] | None, printer: LogPrinter
) -> None:
    there = attempt.log_ranks()
    wanted = there if ranks is None else sorted(ranks & set(there))
    if ranks is not None and len(wanted) < len(ranks):
        missing = ", ".join(map(str, sorted(ranks - set(there))))
        known = f"{there[0]} to {there[-1]}" if there else "none"
        raise ClustersegError(
            f"attempt {attempt.number} has no log of rank {missing}",
            code="no-rank",
            help=f"ranks with a log: {known}",
        )
    if not wanted:
        note(f"note: no rank of attempt {attempt.number} wrote anything; its supervisor:")
        _show_supervisor(attempt, printer)
        _show_batch_output(run, printer)
        return
    tell_placement(attempt)
    printer.named = len(there) > 1
    try:
        for rank, stream in attempt.logs():
            if rank in wanted:
                _show_stream(stream, attempt.number, rank, printer)
    except OSError as error:
        raise _unreadable(error) from None


def _show_supervisor(attempt: Attempt, printer: LogPrinter) -> None:
    try:
        with attempt.open("supervisor.log") as stream:
            _show_stream(stream, attempt.number, SUPERVISOR, printer)
    except FileNotFoundError:
        note(f"note: attempt {attempt.number} has no supervisor's log")
    except OSError as error:
        raise _unreadable(error) from None


def _show_batch_output(run: RunPaths, printer: LogPrinter) -> None:
    for submission in reversed(iter_submissions(run)):
        try:
            with open_regular(submission.output) as stream:
                _show_stream(stream, None, BATCH, printer)
                return
        except FileNotFoundError:
            continue
        except OSError as error:
            raise _unreadable(error) from None
    note(f"note: nothing was printed yet by {run.run_id}")


def _show_stream(
    stream: ByteStream, attempt: int | None, source: int | str, printer: LogPrinter
) -> None:
    lines = _lines(stream)
    if printer.lines is not None:
        lines = iter(deque(lines, maxlen=printer.lines))
    while batch := list(islice(lines, 1000)):
        printer.show(attempt, source, batch)


def _lines(stream: ByteStream) -> Iterator[str]:
    rest = b""
    while chunk := stream.read(CHUNK):
        lines, rest = split_lines(rest, chunk)
        yield from lines
    if rest:
        yield from safe_lines(rest)


def _unreadable(error: OSError) -> ClustersegError:
    return ClustersegError(str(error), code="unreadable", exit_code=ExitCode.FAILED)
