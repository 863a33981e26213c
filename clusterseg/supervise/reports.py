"""What launchers print of ranks that ended badly, of hosts they lost, and of themselves. Pure.

Each pattern names the versions whose words it was made from.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from clusterseg.hostlist import expand
from clusterseg.runs.records import Cause
from clusterseg.runs.text import one_line

_LONGEST_WORDS = 300


@dataclass(frozen=True)
class Report:
    """What a launcher printed about a process that ended badly.

    `late`: after it had said that it ends the others. `vague`: it is one of those on its host, and
    the process that is named may be another one than that which failed first.
    """

    rank: int | None = None
    pid: int | None = None
    host: str | None = None
    signal: int | None = None
    exit_code: int | None = None
    late: bool = False
    vague: bool = False


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
_HYDRA_SIGNAL = re.compile(r"EXIT STRING: [^=]*?\(signal (\d+)\)")
# Of ranks on other hosts MPICH (4.3.2, 5.0.2) prints no such string, and the signal as the code.
_FATAL = (
    signal.SIGILL,
    signal.SIGABRT,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGKILL,
    signal.SIGSEGV,
    signal.SIGTERM,
)
# Intel MPI 2021.18 prints a box for each rank that a signal ended, its own SIGKILLs among them, and
# none for one that exited.
_INTEL = re.compile(
    r"BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES"
    r"[ =]+RANK (\d+) PID (\d+) RUNNING AT (\S+)[ =]+KILLED BY SIGNAL: (\d+)"
)
# What a rank of MPICH or Intel MPI prints into its own log.
_ABORTED = re.compile(r"Abort\((\d+)\) on node (\d+) .*: application called MPI_Abort\(")
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
        number = int(killed[1]) if killed else int(code) if int(code) in _FATAL else None
        exit_code = None if number else int(code)
        report = Report(pid=int(pid), host=host, signal=number, exit_code=exit_code, vague=True)
        found.append((match.start(), report))
    found += _of_intel(text)
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


def _of_intel(text: str) -> Iterator[tuple[int, Report]]:
    """Beside another signal, KILL is what the launcher ended the others with."""
    boxes = list(_INTEL.finditer(text))
    telling = [box for box in boxes if int(box[4]) != signal.SIGKILL]
    for box in telling or boxes:
        rank, pid, host, number = box.groups()
        report = Report(int(rank), int(pid), host, signal=int(number), vague=not telling)
        yield box.start(), report


def who_aborted(logs: Mapping[int, Sequence[str]]) -> Report | None:
    """The rank that says in its log that it called MPI_Abort, by the last lines of each; None if
    none does, or several: MPICH and Intel MPI end with its code and print nothing of it."""
    said = [
        Report(rank=rank, exit_code=int(match[1]))
        for rank, lines in logs.items()
        for match in map(_ABORTED.search, lines)
        if match and int(match[2]) == rank
    ]
    return said[0] if len({one.rank for one in said}) == 1 else None


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


# "srun: error: …", "/usr/bin/srun: unrecognized option '--x'", "[mpiexec@n1] match_arg (…): …".
_LAUNCHERS_LINE = re.compile(r"\[?(?:\S*/)?(?:srun|mpirun|prterun|orterun|mpiexec)\b")
_RULE = re.compile(r"^-{20,}$", re.MULTILINE)  # above and below what Open MPI has to say
# Calls of Hydra ("[mpiexec@n1] match_arg (lib/utils/args.c:166): …") fail one after the other, and
# the innermost, which knows why, speaks first.
_IS_ERROR = re.compile(
    r"\berror\b|unrecogni[sz]ed|unknown|^\[mpiexec@\S+ \w+ \(\S+:\d+\): ", re.IGNORECASE
)


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
