"""Which rank failed first, and what it said: from the ranks' records and the launcher's output.

One dead rank takes the others with it (the launcher ends them, or their next collective
fails), so that many ranks look failed and one is the cause.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from clusterseg.errors import ExitCode
from clusterseg.hostlist import expand
from clusterseg.runs.records import Cause, RankEnd, RankStart
from clusterseg.runs.text import one_line

SHOWN_LINES = 20
_LONGEST_ERROR = 4096
_LONGEST_WORDS = 300


@dataclass(frozen=True)
class RankFacts:
    """One rank at the end of an attempt; `last_t` is the time of its last event, unix seconds."""

    rank: int
    start: RankStart | None = None
    end: RankEnd | None = None
    last_t: float | None = None
    step: int | None = None


@dataclass(frozen=True)
class Report:
    """What a launcher printed about a process that ended badly.

    `late`: after it had said that it ends the others.
    """

    rank: int | None = None
    pid: int | None = None
    host: str | None = None
    signal: int | None = None
    exit_code: int | None = None
    late: bool = False


@dataclass(frozen=True)
class Failure:
    """The rank that failed first, as far as it can be told."""

    rank: int | None = None
    host: str | None = None
    signal: int | None = None
    exit_code: int | None = None
    error: str | None = None


# Signals that launchers send to the ranks that are left: they name no culprit.
_CLEANING_UP = (signal.SIGTERM, signal.SIGINT)
# How ranks end that catch these, the trainer's with a save.
_CLEANED_UP = (ExitCode.OK, ExitCode.STOPPED, 128 + signal.SIGTERM, 128 + signal.SIGINT)

# Open MPI 4 (mpirun) and 5 (prterun), whose message is wrapped over lines.
_OMPI_SIGNAL = re.compile(
    r"noticed that process rank (\d+) with PID (\d+) on node (\S+) exited on signal (\d+)"
)
# "Process name: [[24842,1],3]" in 4, "[prterun-host-1234@1,3]" in 5.
_OMPI_EXIT = re.compile(r"Process name: \[\S*?,(\d+)\] Exit code: (\d+)")
# Which of them that is, Open MPI 5 does not know: the first, or one that lost its connection to it.
_OMPI_ABORT = re.compile(
    r'exited due to process rank (\d+) with PID (\d+) on node (\S+) calling "abort"'
)
# What its ranks print, each line tagged: "[1,2]<stderr>:   Errorcode: 7".
_OMPI_LOST_PEER = re.compile(r"\[\d+,(\d+)\]<\w+>: .*(?:Socket closed|MPI_ERRORS_ARE_FATAL)")
_OMPI_ABORT_CODE = re.compile(r"\[\d+,(\d+)\]<\w+>:\s+Errorcode: (\d+)")
_HYDRA = re.compile(
    r"BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES"
    r"[ =]+PID (\d+) RUNNING AT (\S+)[ =]+EXIT CODE: (\d+)"
)
_HYDRA_SIGNAL = re.compile(r"EXIT STRING: .*\(signal (\d+)\)")
# `clusterseg ranks`, about the first of its ranks that failed.
_RANKS = re.compile(
    r"clusterseg ranks: rank (\d+) \(process (\d+) on (\S+)\) "
    r"(?:ended with exit code (\d+)|was killed by signal (\d+))"
)
# "srun: error: n1: task 3: Exited with exit code 1", "… tasks 0,2: Killed", "… tasks 0-1: …".
_SRUN = re.compile(r"srun: error: (\S+): tasks? (\d+)[^:]*: (?:Exited with exit code (\d+)|(\w+))")
_SRUN_WORDS = {"Killed": 9, "Terminated": 15, "Aborted": 6, "Segmentation": 11, "Bus": 7}
# Ranks that catch srun's TERM are killed after KillWait.
_SRUN_ENDS = re.compile(
    r"srun: (?:\S+: )*Terminating StepId|srun: Job step aborted|\*\*\* STEP \S+ ON \S+ CANCELLED"
)


def launcher_reports(lines: Sequence[str]) -> list[Report]:
    """What the launcher said about ranks that ended badly, in the order it said so."""
    text = " ".join(" ".join(lines).split())
    found: list[tuple[int, Report]] = []
    for match in _OMPI_SIGNAL.finditer(text):
        rank, pid, host, number = match.groups()
        report = Report(rank=int(rank), pid=int(pid), host=host, signal=int(number))
        found.append((match.start(), report))
    for match in _OMPI_EXIT.finditer(text):
        found.append((match.start(), Report(rank=int(match[1]), exit_code=int(match[2]))))
    found += _ompi_aborts(lines, text)
    for match in _HYDRA.finditer(text):
        pid, host, code = match.groups()
        killed = _HYDRA_SIGNAL.search(text, match.end())
        number = int(killed[1]) if killed else None
        exit_code = None if killed else int(code)
        report = Report(pid=int(pid), host=host, signal=number, exit_code=exit_code)
        found.append((match.start(), report))
    for match in _RANKS.finditer(text):
        rank, pid, host, code, killer = match.groups()
        report = Report(
            rank=int(rank),
            pid=int(pid),
            host=host,
            signal=int(killer) if killer else None,
            exit_code=int(code) if code else None,
        )
        found.append((match.start(), report))
    for match in _SRUN.finditer(text):
        host, rank, code, word = match.groups()
        number = _SRUN_WORDS.get(word) if word else None
        report = Report(
            rank=int(rank), host=host, signal=number, exit_code=int(code) if code else None
        )
        found.append((match.start(), report))
    ending = _SRUN_ENDS.search(text)
    since = ending.start() if ending else len(text)
    return [
        replace(report, late=at > since) for at, report in sorted(found, key=lambda one: one[0])
    ]


def _ompi_aborts(lines: Sequence[str], text: str) -> Iterator[tuple[int, Report]]:
    lost_peer = {tag[1] for tag in map(_OMPI_LOST_PEER.match, lines) if tag}
    codes = {tag[1]: int(tag[2]) for tag in map(_OMPI_ABORT_CODE.match, lines) if tag}
    for match in _OMPI_ABORT.finditer(text):
        rank, pid, host = match.groups()
        if rank not in lost_peer:
            report = Report(int(rank), int(pid), host, exit_code=codes.get(rank))
            yield match.start(), report


# "orted on node n2", Open MPI 4: "Remote daemon: [[7,0],1] on node n2"; Open MPI 5: "…, n2";
# srun: "srun: error: Node failure on n[2-3]", "*** STEP 3.0 ON n1 CANCELLED … DUE TO NODE n2
# FAILURE".
_LOST_HOST = re.compile(
    r"[Rr]emote daemon:? \[\S+\] on node (\S+)|[Nn]ode failure on (\S+)|DUE TO NODE (\S+) FAILURE"
)


# slurmstepd: "*** STEP 3.0 ON n1 CANCELLED AT 2026-11-21T03:02:32 DUE TO PREEMPTION ***".
_STEP_CANCELLED = re.compile(
    r"CANCELLED AT \S+ DUE TO (?:(PREEMPTION|JOB REQUEUE)|(TIME LIMIT)|(NODE (?:\S+ )?FAIL))"
)


def cause_printed(lines: Sequence[str]) -> Cause | None:
    """Why Slurm ended the step, as it printed it; for when it does not answer."""
    for match in _STEP_CANCELLED.finditer(" ".join(" ".join(lines).split())):
        if match[1]:
            return Cause.PREEMPTED
        return Cause.TIME_LIMIT if match[2] else Cause.NODE_FAIL
    return None


def lost_hosts(lines: Sequence[str]) -> list[str]:
    """The hosts that the launcher says it has lost."""
    found: list[str] = []
    for match in _LOST_HOST.finditer(" ".join(" ".join(lines).split())):
        with suppress(ValueError):
            found += expand(next(name for name in match.groups() if name).rstrip(".,:"))
    return list(dict.fromkeys(found))


def first_failure(ranks: Sequence[RankFacts], reports: Sequence[Report]) -> Failure:
    """The rank that failed first.

    A signal says most if it is the first that the launcher saw go wrong; then what a rank said of
    its own failure, the earliest first; then the launcher's exit codes; then, if others wrote their
    ends, the rank without one that has been silent for longest.
    """
    known = {one.rank: one for one in ranks}
    placed = [_with_rank(report, ranks) for report in reports]
    telling = [one for one in placed if _is_telling(one)]
    if telling and telling[0].signal:
        return _failure(known, telling[0])
    failed = [one for one in ranks if one.end is not None and one.end.status == "failed"]
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
    summary = _summary(failure, own) if named else otherwise
    lines, whose = (own, "its") if named and own else (launcher, "the launcher's")
    if not lines:
        return summary
    shown = "\n".join(f"  {line}" for line in lines[-SHOWN_LINES:])
    text = f"{summary}\n{whose} last lines:\n{shown}"
    return text if len(text) <= _LONGEST_ERROR else text[: _LONGEST_ERROR - 1] + "…"


# "srun: error: …", "/usr/bin/srun: unrecognized option '--x'", "[mpiexec@n1] match_arg (…): …".
_LAUNCHERS_LINE = re.compile(r"\[?(?:\S*/)?(?:srun|mpirun|prterun|orterun|mpiexec)\b")
_RULE = re.compile(r"^-{20,}$", re.MULTILINE)  # above and below what Open MPI has to say
_IS_ERROR = re.compile(r"\berror\b|unrecogni[sz]ed|unknown", re.IGNORECASE)


def launchers_words(lines: Sequence[str]) -> str | None:
    """What a launcher says of itself, on one line: why no rank was started, as a rule."""
    parts = _RULE.split("\n".join(line for line in lines if line.strip()))
    for box in parts[1::2]:
        said = " ".join(box.split())
        if said and not said.startswith("WARNING"):
            return one_line(said, _LONGEST_WORDS)
    own = [line for line in lines if _LAUNCHERS_LINE.match(line)]
    told = next((line for line in own if _IS_ERROR.search(line)), own[0] if own else None)
    return None if told is None else one_line(told, _LONGEST_WORDS)


def _summary(failure: Failure, log_lines: Sequence[str]) -> str:
    who = f"rank {failure.rank}" + (f" on {failure.host}" if failure.host else "")
    if failure.signal:
        return f"{who} was killed by signal {failure.signal} ({signal_name(failure.signal)})"
    said = failure.error or _exception(log_lines)
    if said:
        return f"{who} failed: {one_line(said, 400)}"
    if failure.exit_code is not None:
        return f"{who} exited with code {failure.exit_code}"
    return f"{who} ended without a word"


def signal_name(number: int) -> str:
    """SIGKILL for 9; the number itself if it has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


_EXCEPTION = re.compile(r"(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt|Exit)\b.*")


def _exception(lines: Sequence[str]) -> str | None:
    """The last line of the last Python traceback."""
    return next((line for line in reversed(lines) if _EXCEPTION.fullmatch(line)), None)


def _with_rank(report: Report, ranks: Sequence[RankFacts]) -> Report:
    """Hydra names a process and its host only; the ranks' own records say which rank that is."""
    if report.rank is not None or report.pid is None:
        return report
    same = [one.rank for one in ranks if one.start is not None and one.start.pid == report.pid]
    if len(same) != 1:
        return report
    return replace(report, rank=same[0])


def _is_telling(report: Report) -> bool:
    """Whether a process came to this end by itself, as far as can be told."""
    if report.signal is not None:
        cleaning = (*_CLEANING_UP, signal.SIGKILL) if report.late else _CLEANING_UP
        return report.signal not in cleaning
    return report.exit_code is not None and report.exit_code not in _CLEANED_UP


def _failure(known: dict[int, RankFacts], report: Report) -> Failure:
    facts = known.get(report.rank) if report.rank is not None else None
    started = facts.start if facts else None
    ended = facts.end if facts else None
    return Failure(
        rank=report.rank,
        # The rank's own word: launchers may name an address, or the name inside a container.
        host=started.host if started else report.host,
        signal=report.signal,
        exit_code=report.exit_code,
        error=ended.error if ended and ended.status == "failed" else None,
    )
