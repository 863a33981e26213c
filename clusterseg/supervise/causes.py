"""Why an attempt ended, and what a signal or a request to stop means: pure functions.

Nothing here looks at a clock, a process or a file; docs/supervision.md has the causes.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass

from clusterseg.errors import ExitCode
from clusterseg.runs.control import StopReason
from clusterseg.runs.records import Cause

NEAR_THE_LIMIT = 180.0  # seconds


@dataclass(frozen=True)
class Evidence:
    """What is known when the launcher has ended.

    `exit_code` is the launcher's, None if a signal ended it. `asked` is the stop that was asked
    for, `forced` what the supervisor itself found (a hang, a wrong placement). `reports_ends`:
    these ranks write rank_end events. `statuses` are those of the ranks that did; `error` is
    what the first failed rank said of itself, `log_tail` its and the launcher's last lines.
    `no_room`: the disk is full, and may not have taken what the ranks had to say.
    """

    exit_code: int | None
    ranks: int
    asked: Cause | None = None
    forced: Cause | None = None
    reports_ends: bool = False
    statuses: tuple[str, ...] = ()
    error: str | None = None
    log_tail: tuple[str, ...] = ()
    killed_for_memory: bool = False
    no_room: bool = False


# The memory of a host or a cgroup, of Python, of C++, of TensorFlow, as Slurm says it.
_NO_MEMORY = re.compile(
    r"\bMemoryError\b|std::bad_alloc|Cannot allocate memory|OOM when allocating"
    r"|oom[-_ ]?kill|[Oo]ut [Oo]f [Mm]emory|Resource exhausted: OOM"
)
_NO_SPACE = re.compile(
    r"\bdisk full:|No space left on device|Disk quota exceeded|\[Errno (28|122)\]"
)
# Only looked for in what a rank says of its own end: a log may print "nan" and go on.
_NOT_FINITE = re.compile(r"\bnan\b|not finite|non-?finite", re.IGNORECASE)
_LOST_NODE = re.compile(
    r"lost communication with (a|the) remote daemon|[Nn]ode failure on|daemon .*lost contact"
    r"|unable to reliably start one or more daemons|HYD_pmcd_pmiserv.*(lost|closed) connection"
)
# Open MPI 5.0.11: when its daemons are ended, mpirun ends the ranks and returns 0.
_LOST_DAEMON = re.compile(
    r"srun returned non-zero exit status|[Dd]aemon .*(died|exited|failed|terminated) unexpectedly"
)

# Of Intel's mpiexec, where a rank on another host ended with whatever was not 0.
_OF_ANY_END = 255


def classify(evidence: Evidence) -> Cause:  # noqa: PLR0911 (one line a rule)
    """The cause of an attempt's end.

    A stop that was asked for is the cause however the ranks then ended, unless they say that
    there was no memory or no space: then a resume would fail in the same way.
    """
    if evidence.forced is not None:
        return evidence.forced
    all_say = evidence.statuses[0] if len(set(evidence.statuses)) == 1 else None
    complete = len(evidence.statuses) >= evidence.ranks
    if evidence.exit_code == 0 and all_say == "done" and complete:
        return Cause.DONE  # a request to stop that came too late has changed nothing
    if evidence.asked is Cause.CANCELLED:
        return Cause.CANCELLED
    if evidence.exit_code == 0 and not evidence.reports_ends and _went_well(evidence):
        return Cause.DONE
    resumably = evidence.exit_code in (ExitCode.STOPPED, 0)
    # The first that stops may be the end of the others: Open MPI then says 75, Intel MPI 255. With
    # any other code one may have been killed, and these were told to end because of it.
    unsaid = evidence.exit_code == _OF_ANY_END and not evidence.reports_ends
    if all_say == "stopped" and (complete or resumably or unsaid):
        return evidence.asked or Cause.PREEMPTED
    if evidence.exit_code == ExitCode.STOPPED and "failed" not in evidence.statuses:
        return evidence.asked or Cause.PREEMPTED
    named = _named_failure(evidence) or _unsaid(evidence)
    return named or evidence.asked or _lost_node(evidence) or Cause.CRASH


def _went_well(evidence: Evidence) -> bool:
    """Whether to believe the exit code 0 of a program that need not tell of its end."""
    printed = " ".join(evidence.log_tail)
    if _LOST_DAEMON.search(printed) or _LOST_NODE.search(printed):
        return False
    return not {"stopped", "failed"} & set(evidence.statuses)


def _named_failure(evidence: Evidence) -> Cause | None:
    own = evidence.error or ""
    lines = "\n".join((own, *evidence.log_tail))
    if evidence.killed_for_memory or _NO_MEMORY.search(lines):
        return Cause.OUT_OF_MEMORY
    if _NO_SPACE.search(lines):
        return Cause.DISK_FULL
    return Cause.NAN if _NOT_FINITE.search(own) else None


def _unsaid(evidence: Evidence) -> Cause | None:
    """A full disk, which takes neither the event nor the line that would name it."""
    said = evidence.error or _lost_node(evidence)  # the launcher's lines come by a pipe
    return Cause.DISK_FULL if evidence.no_room and not said else None


def _lost_node(evidence: Evidence) -> Cause | None:
    return Cause.NODE_FAIL if _LOST_NODE.search("\n".join(evidence.log_tail)) else None


def cause_of_signal(number: int, seconds_left: float | None) -> Cause:
    """What a signal at the supervisor means; `seconds_left` of the allocation, if known.

    Ctrl-C is a person's wish. USR1 is a notice: of the time limit if that is near (Slurm sends
    `--signal` up to a minute early), else of preemption, as TERM and a lost terminal are.
    """
    if number == signal.SIGINT:
        return Cause.CANCELLED
    if number == signal.SIGUSR1 and seconds_left is not None and seconds_left <= NEAR_THE_LIMIT:
        return Cause.TIME_LIMIT
    return Cause.PREEMPTED


def cause_of_request(reason: str) -> Cause:
    """What the reason in a stop file means; one that nobody knows is a person's."""
    known: dict[str, Cause] = {
        StopReason.PREEMPTED: Cause.PREEMPTED,
        StopReason.TIME_LIMIT: Cause.TIME_LIMIT,
        StopReason.SUPERSEDED: Cause.PREEMPTED,  # by the next attempt, which waits for our save
    }
    return known.get(reason, Cause.CANCELLED)
