"""Why an attempt ended and what follows from it: pure functions from values to values.

Nothing here looks at a clock, a process or a file; the table of causes, budgets, states and
exit codes is that of docs/supervision.md.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Container, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import count
from typing import Literal

from clusterseg.errors import ExitCode
from clusterseg.runs.control import StopReason
from clusterseg.runs.records import Cause, State

Budget = int | Literal["unlimited"]

LONGEST_BACK_OFF = 60.0  # seconds
NEAR_THE_LIMIT = 180.0  # seconds
MOST_ROLLBACKS = 3  # of attempts that began at the same step, and over steps in a row


@dataclass(frozen=True)
class Budgets:
    """How often each kind of end may start the run again, over one submission."""

    preemption: Budget = "unlimited"
    time_limit: Budget = 20
    crash: Budget = 3
    node: Budget = 10


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
    if all_say == "stopped" and (complete or resumably):
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


class Action(StrEnum):
    """What the supervisor does next."""

    END = "end"
    RESTART = "restart"  # a new attempt, here and now
    YIELD = "yield"  # nothing: another process waits to make the next attempt
    REQUEUE = "requeue"  # a new attempt, by having the scheduler start this job again


@dataclass(frozen=True)
class Ended:
    """An attempt that is over, as far as deciding goes.

    `position` is the last optimizer step of the run that it reached (the one it resumed from,
    `resumed`, if it did none), None if its ranks do not tell. Only attempts of one submission are
    compared: `resume` starts with fresh budgets. `signal` is the one that ended a rank.
    `killed`: it has no end record. `final`: its end record says that nothing follows.
    `unlaunched`: no rank was started, or they were not where they should be; known of the last
    attempt only.
    """

    cause: Cause
    position: int | None = None
    error: str | None = None
    signal: int | None = None
    resumed: int = 0
    killed: bool = False
    final: bool = False
    unlaunched: bool = False


@dataclass(frozen=True)
class Decision:
    """`state` and `exit_code` are those of the run if nothing follows; `delay` in seconds."""

    action: Action
    state: State
    exit_code: int
    reason: str
    delay: float = 0.0


def decide(
    ended: Ended,
    history: Sequence[Ended],
    budgets: Budgets,
    *,
    can_requeue: bool = False,
    requeued: bool = False,
    space_seen: bool = False,
    asked: bool = False,
    now: bool = False,
    superseded: bool = False,
    rollback: bool = False,
) -> Decision:
    """What follows after `ended`; `history` holds the earlier attempts, oldest first.

    `can_requeue`: a scheduler would queue this job again; `requeued`: it has done so already,
    and this life of the job is about to end. `space_seen`: there is room on the disk now.
    `asked`: a stop was asked for, `now` one without a save; `superseded`: the next attempt, which
    waits for this one, has asked. `rollback`: the next attempt leaves out the step that was not
    finite (`train.on_nan`).
    """
    if superseded:
        reason = "the next attempt waits for this one"
        return Decision(Action.YIELD, State.STOPPED, ExitCode.STOPPED, reason)
    decision = _decide(
        ended,
        history,
        budgets,
        can_requeue=can_requeue,
        space_seen=space_seen,
        now=now,
        rollback=rollback,
    )
    if decision.action is not Action.RESTART:
        return decision
    if requeued:
        reason = f"{decision.reason}, when the job is started again"
        return Decision(Action.REQUEUE, decision.state, decision.exit_code, reason)
    if asked:
        reason = "a stop was asked for: not restarted"
        return Decision(Action.END, decision.state, decision.exit_code, reason)
    return decision


def refuse(history: Sequence[Ended], budgets: Budgets) -> Decision | None:
    """Whether the job was started again against its budgets; None if all is well.

    A scheduler that kills a job and queues it again asks nobody: what the attempt before was
    killed for counts when the next one is about to start. So does its end as the last one, for a
    cause for which a scheduler queues again: after any other end it was a person who did so.
    """
    if not history:
        return None
    last = history[-1]
    stopped = last.cause in (Cause.PREEMPTED, Cause.TIME_LIMIT)
    if not last.killed and not (last.final and (stopped or last.cause is Cause.NODE_FAIL)):
        return None
    if stopped:
        decision = _after_stop(last, history[:-1], budgets, can_requeue=True)
    elif last.cause in (*_CRASHES, Cause.NODE_FAIL):
        decision = _after_failure(last, history[:-1], budgets)
    else:
        decision = _decide(
            last, history[:-1], budgets, can_requeue=True, space_seen=False, now=False
        )
    return decision if decision.action is Action.END else None


def _decide(  # noqa: PLR0911 (one rule a cause)
    ended: Ended,
    history: Sequence[Ended],
    budgets: Budgets,
    *,
    can_requeue: bool,
    space_seen: bool,
    now: bool,
    rollback: bool = False,
) -> Decision:
    cause = ended.cause
    if cause is Cause.DONE:
        return Decision(Action.END, State.DONE, ExitCode.OK, "done")
    if cause is Cause.CANCELLED:
        state, code = (
            (State.CANCELLED, ExitCode.FAILED) if now else (State.STOPPED, ExitCode.STOPPED)
        )
        return Decision(Action.END, state, code, "cancelled")
    if cause in (Cause.PREEMPTED, Cause.TIME_LIMIT):
        return _after_stop(ended, history, budgets, can_requeue=can_requeue)
    if cause is Cause.DISK_FULL:
        return _after_disk_full(history, space_seen=space_seen)
    if cause is Cause.NAN and rollback:
        return _after_rollback(ended, history)
    if cause in (Cause.OUT_OF_MEMORY, Cause.NAN):
        return Decision(
            Action.END, State.FAILED, ExitCode.FAILED, f"{cause} would come again: not retried"
        )
    decision = _after_failure(ended, history, budgets)
    if cause is Cause.NODE_FAIL and can_requeue and decision.action is Action.RESTART:
        # The lost host stays in this allocation: another one is needed.
        reason = decision.reason.replace("restart for", "requeued for")
        return Decision(Action.REQUEUE, decision.state, decision.exit_code, reason)
    return decision


def _after_stop(
    ended: Ended, history: Sequence[Ended], budgets: Budgets, *, can_requeue: bool
) -> Decision:
    if not can_requeue:
        reason = "no scheduler queues it again: `clusterseg resume` goes on"
        return Decision(Action.END, State.STOPPED, ExitCode.STOPPED, reason)
    budget = budgets.preemption if ended.cause is Cause.PREEMPTED else budgets.time_limit
    used = sum(one.cause is ended.cause for one in history)
    if _is_used_up(budget, used):
        reason = _used_up(budget, str(ended.cause))
        return Decision(Action.END, State.STOPPED, ExitCode.STOPPED, reason)
    return Decision(Action.REQUEUE, State.STOPPED, ExitCode.STOPPED, f"requeued: {ended.cause}")


def _after_disk_full(history: Sequence[Ended], *, space_seen: bool) -> Decision:
    tried = any(one.cause is Cause.DISK_FULL for one in history)
    if space_seen and not tried:
        reason = "there is space again: one more try"
        return Decision(Action.RESTART, State.STOPPED, ExitCode.STOPPED, reason, delay=1.0)
    reason = "the disk was full a second time" if tried else "the disk is full"
    return Decision(Action.END, State.STOPPED, ExitCode.STOPPED, reason)


def _after_rollback(ended: Ended, history: Sequence[Ended]) -> Decision:
    """Each try leaves one more step out, so only those without a save between them are counted; and
    those with nothing but steps left out between them, which may be saved as well."""
    failed = [one for one in history if one.cause is Cause.NAN]
    tried = sum(one.resumed == ended.resumed for one in failed)
    if tried >= MOST_ROLLBACKS:
        reason = f"nan in {tried + 1} attempts from step {ended.resumed} on: not retried"
        return Decision(Action.END, State.FAILED, ExitCode.FAILED, reason)
    row = _row(ended.position, {one.position for one in failed})
    if row >= MOST_ROLLBACKS:
        reason = f"nan in {row + 1} steps one after the other: not retried"
        return Decision(Action.END, State.FAILED, ExitCode.FAILED, reason)
    which = f"{tried + 1} of {MOST_ROLLBACKS} from step {ended.resumed} on"
    reason = f"rolled back to the last checkpoint: {which}"
    return Decision(Action.RESTART, State.FAILED, ExitCode.FAILED, reason, delay=1.0)


def _row(last: int | None, known: Container[int | None]) -> int:
    """How many of the steps right before `last` are known, without a gap."""
    if last is None:
        return 0
    return next(row for row in count() if last - 1 - row not in known)


_CRASHES = (Cause.CRASH, Cause.HANG, Cause.UNKNOWN)


def _after_failure(ended: Ended, history: Sequence[Ended], budgets: Budgets) -> Decision:
    node = ended.cause is Cause.NODE_FAIL
    budget, name = (budgets.node, "node") if node else (budgets.crash, "crash")
    used = sum(one.cause is Cause.NODE_FAIL if node else one.cause in _CRASHES for one in history)
    if _is_used_up(budget, used):
        return Decision(Action.END, State.FAILED, ExitCode.FAILED, _used_up(budget, name))
    if not node and _repeats(ended, history):
        where = "the launch" if ended.unlaunched else f"step {ended.position}"
        reason = f"the same error at {where} as before: not retried"
        return Decision(Action.END, State.FAILED, ExitCode.FAILED, reason)
    failed = 0
    for one in reversed(history):
        if one.cause not in (*_CRASHES, Cause.NODE_FAIL):
            break
        failed += 1
    left = "no limit" if budget == "unlimited" else f"{used + 1} of {budget}"
    return Decision(
        Action.RESTART,
        State.FAILED,
        ExitCode.FAILED,
        f"restart for {name}: {left}",
        delay=min(2.0**failed, LONGEST_BACK_OFF),
    )


def _repeats(ended: Ended, history: Sequence[Ended]) -> bool:
    """Failed as the attempt before did, without having come any further.

    A KILL or TERM comes from outside: that it met the same step twice says nothing. Nor does a
    supervisor that was killed, with the error unwritten and the step that it began at for all.
    """
    if not history or history[-1].cause not in _CRASHES:
        return False
    last = history[-1]
    if ended.killed or last.killed or ended.signal in (signal.SIGKILL, signal.SIGTERM):
        return False
    here = ended.position is not None and last.position == ended.position
    return (here or ended.unlaunched) and signature(last.error) == signature(ended.error)


def signature(error: str | None) -> str:
    """What two errors of the same kind share: their first line without numbers and places."""
    first = (error or "").split("\n", 1)[0]
    return re.sub(r"0x[0-9a-fA-F]+|\d+", "#", first)


def _is_used_up(budget: Budget, used: int) -> bool:
    return budget != "unlimited" and used >= budget


def _used_up(budget: Budget, name: str) -> str:
    if budget == 0:
        return f"restart.{name} is 0: not restarted"
    return f"restart.{name} allows {budget} restarts: all used"
