"""What follows from how an attempt ended: a pure function from values to values.

Nothing here looks at a clock, a process or a file; the table of causes (`supervise.causes`),
budgets, states and exit codes is that of docs/supervision.md.
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
from clusterseg.runs.records import Cause, State

Budget = int | Literal["unlimited"]

LONGEST_BACK_OFF = 60.0  # seconds
MOST_ROLLBACKS = 3  # of attempts that began at the same step, and over steps in a row


@dataclass(frozen=True)
class Budgets:
    """How often each kind of end may start the run again, over one submission."""

    preemption: Budget = "unlimited"
    time_limit: Budget = 20
    crash: Budget = 3
    node: Budget = 10


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


def prevailing(ended: Ended, history: Sequence[Ended], asked: Cause, *, rollback: bool) -> Cause:
    """The cause that counts of an attempt that was `asked` to stop, for that cause.

    A step that was not finite, met by ranks that were to stop anyhow, changes nothing where it
    would be rolled back for: who goes on meets it again, and rolls back then.
    """
    if ended.cause is not Cause.NAN or not rollback:
        return ended.cause
    again = _after_rollback(ended, history).action is Action.RESTART
    return asked if again else ended.cause


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
