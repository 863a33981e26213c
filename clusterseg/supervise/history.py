"""What earlier attempts came to, as the policy reads it."""

from __future__ import annotations

from collections.abc import Callable

from clusterseg.plan.model import Plan
from clusterseg.runs.attempts import iter_attempts, last_attempt
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Cause, Claim
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
            found.append(Ended(cause_of_kill(earlier), at, killed=True))
        else:
            came_to = position(plan, earlier, end.last_step)
            final = not end.will_restart
            found.append(Ended(end.cause, came_to, end.error, end.signal, final=final))
    return found


def position(plan: Plan, claim: Claim, last_step: int | None) -> int | None:
    """The step an attempt came to; that of a program which tells no steps is not known."""
    if last_step is not None:
        return last_step
    return claim.resume_step if plan.spec.train is not None else None


def budgets(plan: Plan) -> Budgets:
    """The budgets that job.yaml gives."""
    spec = plan.spec.restart
    return Budgets(spec.preemption, spec.time_limit, spec.crash, spec.node)


def is_done(run: RunPaths, submission: int) -> bool:
    """Whether this submission has nothing left to do."""
    last = last_attempt(run)
    return (
        last is not None
        and last.claim is not None
        and last.claim.submission == submission
        and last.end is not None
        and last.end.cause is Cause.DONE
    )
