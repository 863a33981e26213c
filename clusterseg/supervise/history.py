"""What earlier attempts came to, as the policy reads it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from clusterseg.errors import ExitCode
from clusterseg.plan.model import Plan
from clusterseg.runs.attempts import (
    Attempt,
    attempt_numbers,
    iter_attempts,
    last_attempt,
    read_attempt,
)
from clusterseg.runs.eventlog import iter_events
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Cause, Checkpoint, Claim
from clusterseg.runs.store import iter_submissions
from clusterseg.supervise.limits import Saves
from clusterseg.supervise.opening import Opening
from clusterseg.supervise.policy import Budgets, Ended


def ended_before(
    run: RunPaths, claim: Claim, plan: Plan, cause_of_kill: Callable[[Claim], Cause]
) -> list[Ended]:
    """The earlier attempts of the claim's submission, oldest first.

    `cause_of_kill` says why one without an end record was killed, as far as that is known.
    """
    found = []
    for attempt in iter_attempts(run):
        earlier, end = attempt.claim, attempt.end
        if earlier is None or earlier.submission != claim.submission:
            continue
        if earlier.attempt >= claim.attempt:
            break
        if end is None:
            at = position(plan, earlier, None)
            cause = cause_of_kill(earlier)
            found.append(Ended(cause, at, resumed=earlier.resume_step, killed=True))
        else:
            came_to = position(plan, earlier, end.last_step)
            final = not end.will_restart
            found.append(
                Ended(
                    end.cause,
                    came_to,
                    end.error,
                    end.signal,
                    resumed=earlier.resume_step,
                    final=final,
                )
            )
    return found


def position(plan: Plan, claim: Claim, last_step: int | None) -> int | None:
    """The step an attempt came to; that of a program which tells no steps is not known."""
    if last_step is not None:
        return last_step
    return claim.resume_step if plan.spec.train is not None else None


_REMEMBERED = 5  # attempts whose saves are looked at: event files may be long


def saves_before(run: RunPaths, attempt: int, *, train: bool) -> list[Saves]:
    """What the attempts before this one show of saving, oldest first; unreadable ones are left out.

    Of any submission: it is the same model and, as a rule, the same file system. `train`: these
    ranks are the trainer's, which save at a stop.
    """
    earlier: list[int] = []
    with suppress(OSError):
        earlier = [number for number in attempt_numbers(run) if number < attempt]
    found = []
    for number in earlier[-_REMEMBERED:]:
        with suppress(OSError):
            one = read_attempt(run.attempt(number))
            if one is not None:
                found.append(_saves(one, train=train))
    return found


def _saves(attempt: Attempt, *, train: bool) -> Saves:
    end, longest, began = attempt.end, None, False
    for rank, stream in attempt.events():
        if rank != 0:  # it is the one that tells
            break
        began = True
        seconds = [
            event.blocked_seconds + event.write_seconds
            for event in iter_events(stream)
            if isinstance(event, Checkpoint)
        ]
        longest = max(seconds, default=None)
    cut_off = train and end is not None and end.cause is Cause.TIME_LIMIT
    saved = end is not None and end.exit_code in (ExitCode.OK, ExitCode.STOPPED)
    return Saves(longest, began and cut_off and not saved)


def budgets(plan: Plan) -> Budgets:
    """The budgets that job.yaml gives."""
    spec = plan.spec.restart
    return Budgets(spec.preemption, spec.time_limit, spec.crash, spec.node)


def rolls_back(plan: Plan) -> bool:
    """Whether an attempt that ended as nan is followed by one without the step that was so."""
    return plan.spec.train is not None and plan.spec.train.on_nan == "rollback"


def why_over(run: RunPaths, opening: Opening) -> str | None:
    """Why this job has nothing to do; None if it has.

    A job of an older submission comes late (a client slept before it released it), and so does a
    second one of the same submission whose first has come to its end.
    """
    newest = max(one.number for one in iter_submissions(run) if one.plan.exists())
    if newest > opening.submission:
        return f"submission {newest} has taken the place of this job's, {opening.submission}"
    return _why_ended(last_attempt(run), opening)


def _why_ended(last: Attempt | None, opening: Opening) -> str | None:
    if last is None or last.claim is None or last.end is None:
        return None
    if last.claim.submission != opening.submission:
        return None
    if last.end.cause is Cause.DONE:
        return "done already"
    if opening.job is None or last.end.will_restart:
        return None
    again = last.claim.job_id == opening.job_id
    # A person who has a job that is over queued again wants another try, and its count grows. A
    # controller that lost its state (22.05) starts it a second time with the count it had.
    if again and opening.restart_count > last.claim.restart_count:
        return None
    what = "has ended it" if again else "was its job, and has ended it"
    return f"{last.claim.job_id} {what} ({last.end.cause}); `clusterseg resume` goes on"
