"""Whether a run can go on as a changed job: asked before anything of it is submitted."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
from msgspec.structs import replace

from clusterseg.errors import ClustersegError
from clusterseg.plan.model import Plan
from clusterseg.runs import files
from clusterseg.runs.checkpoints import CheckpointError, CheckpointInfo, counting_checkpoints
from clusterseg.runs.choice import refuse_if_lost
from clusterseg.runs.fit import Fits, fits_all, fits_of, mismatch
from clusterseg.runs.paths import SubmissionPaths
from clusterseg.runs.resizing import share_of_rank
from clusterseg.runs.snapshot import Snapshot
from clusterseg.spec.model import JobSpec
from clusterseg.submit.resumption import LARGEST_PLAN
from clusterseg.submit.weights import look_at_weights


def with_force(
    plan: Plan,
    snapshot: Snapshot,
    *,
    force: bool,
    data: Callable[[], Mapping[str, str]] = dict,
    say: Callable[[str], None] = lambda text: None,
) -> Plan:
    """`plan`, to go on in the run of `snapshot`; with `force` where its checkpoint differs from it.

    Compares by headers, as the supervisor will (`runs.choice`), so that no job waits in a queue to
    be told. `data` tells what the data set adds to what must be the same, as far as it is seen from
    here; it is asked only if there is a checkpoint to compare it with. Raises ClustersegError (exit
    code 2) that names every key in which the checkpoint differs that the job would go on from, had
    nothing been changed; if the job's ranks can't share its global batch (`runs.resizing`); if the
    run has lost its checkpoints (`runs.choice`), or has none yet and its initial weights can't be
    used (`submit.weights`); and if there is nothing that could be forced.
    """
    if plan.spec.train is None:
        if force:
            raise ClustersegError(
                f"{snapshot.run.run_id} has a `command`, whose checkpoints are its own",
                code="usage",
                help="resume it without --force",
            )
        return plan
    newest = _would_go_on_from(snapshot)
    if newest is None:  # it will begin anew
        _refuse_if_lost(snapshot)
        for warning in look_at_weights(plan):
            say(f"warning: {warning}")
    else:
        seen = data()
        found = fits_of(plan.spec.train, force=force, data=seen)(newest.header)
        if found:
            raise _usage(mismatch(newest.name, found))
        share_of_rank(plan.spec.train, plan.ranks, newest.header)
        for one in fits_of(plan.spec.train, force=False, data=seen)(newest.header):
            say(f"warning: --force: {one} ({newest.name})")
    return replace(plan, force=force)


def _would_go_on_from(snapshot: Snapshot) -> CheckpointInfo | None:
    """The newest checkpoint that fits the job as it was submitted last; if none does, the newest.

    Not the newest that fits the job as it is to be: a change must not cost the steps since then.
    """
    claim = snapshot.attempt.claim if snapshot.attempt is not None else None
    found = [] if claim is None else counting_checkpoints(snapshot.run, claim)
    fits = fits_all if snapshot.submission is None else _submitted(snapshot.submission)
    fitting = [one for one in found if not fits(one.header)]
    return next(reversed(fitting or found), None)


def _refuse_if_lost(snapshot: Snapshot) -> None:
    claim = snapshot.attempt.claim if snapshot.attempt is not None else None
    if claim is not None:
        try:
            refuse_if_lost(snapshot.run, claim)
        except CheckpointError as error:
            raise _usage(error) from None


def _usage(error: CheckpointError) -> ClustersegError:
    """The error as one of who asked, of which nothing has come yet (exit code 2)."""
    return ClustersegError(error.message, code=error.code, help=error.help)


class _Submitted(msgspec.Struct):
    """What plan.json says of the job (`clusterseg.plan.model.Plan`)."""

    spec: JobSpec
    force: bool = False


def _submitted(submission: SubmissionPaths) -> Fits:
    try:
        data = files.read_capped(submission.plan, LARGEST_PLAN)
        plan = msgspec.json.decode(data, type=_Submitted)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return fits_all
    return fits_of(plan.spec.train, force=plan.force)
