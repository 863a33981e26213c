"""Which rank failed first, and what it said: from the ranks' records and the launcher's reports.

One dead rank takes the others with it (the launcher ends them, or their next collective
fails), so that many ranks look failed and one is the cause.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace

from clusterseg.errors import ExitCode
from clusterseg.runs.records import RankEnd, RankStart
from clusterseg.runs.text import one_line, signal_name
from clusterseg.supervise.reports import Report

SHOWN_LINES = 20
_LONGEST_ERROR = 4096


@dataclass(frozen=True)
class RankFacts:
    """One rank at the end of an attempt; `last_t` is the time of its last event, unix seconds."""

    rank: int
    start: RankStart | None = None
    end: RankEnd | None = None
    last_t: float | None = None
    step: int | None = None


@dataclass(frozen=True)
class Failure:
    """The rank that failed first, as far as it can be told: perhaps only on which host it was."""

    rank: int | None = None
    host: str | None = None
    signal: int | None = None
    exit_code: int | None = None
    error: str | None = None


# Signals that launchers send to the ranks that are left: they name no culprit.
_CLEANING_UP = (signal.SIGTERM, signal.SIGINT)
# How ranks end that catch these, the trainer's with a save.
_CLEANED_UP = (ExitCode.OK, ExitCode.STOPPED, 128 + signal.SIGTERM, 128 + signal.SIGINT)


def first_failure(ranks: Sequence[RankFacts], reports: Sequence[Report]) -> Failure:
    """The rank that failed first.

    A signal says most if it is the first that the launcher saw go wrong (but for KILL by a Hydra,
    which also ends the others so, and may name one of those); then what a rank said of its own
    failure, the earliest first; then the launcher's exit codes; then, if others wrote their ends,
    the rank without one that has been silent for longest.
    """
    known = {one.rank: one for one in ranks}
    placed = [_with_rank(report, ranks) for report in reports]
    telling = [one for one in placed if _is_telling(one)]
    failed = [one for one in ranks if one.end is not None and one.end.status == "failed"]
    if telling and telling[0].signal and not (failed and telling[0].vague):
        return _failure(known, telling[0])
    if failed:
        first = min(failed, key=lambda one: one.end.t if one.end else 0.0)
        own = [one for one in telling if one.rank == first.rank and not one.signal]
        return _failure(known, own[0] if own else Report(rank=first.rank))
    exited = telling or [one for one in placed if one.exit_code is not None] or placed
    if exited:
        return _failure(known, exited[0])
    if len(ranks) == 1:
        return _failure(known, Report(rank=ranks[0].rank))
    # Open MPI 5.0.11 prints nothing about a rank that fails when the others have ended already.
    silent = [one for one in ranks if one.end is None]
    if silent and len(silent) < len(ranks):
        first = min(silent, key=lambda one: one.last_t or 0.0)
        return _failure(known, Report(rank=first.rank))
    return Failure()


def describe(
    failure: Failure, own: Sequence[str], launcher: Sequence[str], *, otherwise: str
) -> str:
    """The error for end.json, the log and the screen: one line, then the last lines there are.

    `own` are the lines of the rank that failed, `launcher` what the launcher printed: shown if no
    rank can be named, or if that one wrote nothing. `otherwise` is the first line if none can be
    named.
    """
    named = failure.rank is not None
    placed = failure.host is not None and failure.signal is not None
    summary = _summary(failure, own) if named or placed else otherwise
    lines, whose = (own, "its") if named and own else (launcher, "the launcher's")
    if not lines:
        return summary
    shown = "\n".join(f"  {line}" for line in lines[-SHOWN_LINES:])
    text = f"{summary}\n{whose} last lines:\n{shown}"
    return text if len(text) <= _LONGEST_ERROR else text[: _LONGEST_ERROR - 1] + "…"


def _summary(failure: Failure, log_lines: Sequence[str]) -> str:
    who = "one of the ranks" if failure.rank is None else f"rank {failure.rank}"
    who += f" on {failure.host}" if failure.host else ""
    if failure.signal:
        return f"{who} was killed by signal {failure.signal} ({signal_name(failure.signal)})"
    said = failure.error or _exception(log_lines)
    if said:
        return f"{who} failed: {one_line(said, 400)}"
    if failure.exit_code is not None:
        return f"{who} exited with code {failure.exit_code}"
    return f"{who} ended without a word"


_EXCEPTION = re.compile(r"(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt|Exit)\b.*")


def _exception(lines: Sequence[str]) -> str | None:
    """The last line of the last Python traceback."""
    return next((line for line in reversed(lines) if _EXCEPTION.fullmatch(line)), None)


def _with_rank(report: Report, ranks: Sequence[RankFacts]) -> Report:
    """Hydra names a process and its host, which need not be the process that failed: the ranks' own
    records say whether it was alone there."""
    if not report.vague:
        return report
    starts = [one.start for one in ranks if one.start is not None]
    same = [one for one in starts if report.pid == one.pid and report.rank in (None, one.rank)]
    if len(same) != 1:
        return replace(report, rank=None)
    host = same[0].host
    alone = sum(one.host == host for one in starts) == 1
    return replace(report, rank=same[0].rank if alone else None, host=host)


def _is_telling(report: Report) -> bool:
    """Whether a process came to this end by itself, as far as can be told."""
    if report.signal is not None:
        cleaning = (*_CLEANING_UP, signal.SIGKILL) if report.late else _CLEANING_UP
        return report.signal not in cleaning
    return report.exit_code is not None and report.exit_code not in _CLEANED_UP


# What the wrapper of a program writes of one that did not say how it failed (rank_exec.py).
_PROGRAM_ENDED = re.compile(r"the program ended with (?:exit code (\d+)|signal (\d+))")


def _failure(known: dict[int, RankFacts], report: Report) -> Failure:
    facts = known.get(report.rank) if report.rank is not None else None
    started = facts.start if facts else None
    ended = facts.end if facts else None
    error = ended.error if ended and ended.status == "failed" else None
    told = _PROGRAM_ENDED.fullmatch(error or "")
    code, number = told.groups() if told else (None, None)
    return Failure(
        rank=report.rank,
        # The rank's own word: launchers may name an address, or the name inside a container.
        host=started.host if started else report.host,
        signal=int(number) if number else report.signal,
        exit_code=int(code) if code else report.exit_code,
        error=None if told else error,
    )
