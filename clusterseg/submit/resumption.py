"""Going on with a run: whether it may be, and the further submission that does it."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from clusterseg.errors import ClustersegError
from clusterseg.plan.model import CodeSource, Plan
from clusterseg.runs import files, making, store
from clusterseg.runs.paths import RunPaths, SubmissionPaths
from clusterseg.runs.progress import read_goal
from clusterseg.runs.records import State
from clusterseg.runs.snapshot import Snapshot, next_attempt_number
from clusterseg.submit.code import gather_again
from clusterseg.submit.submission import Submitted, new_intent, start, submission_files

LARGEST_PLAN = 16 << 20  # bytes
_LARGEST_REQUEST = 4096


def resume(
    snapshot: Snapshot,
    plan: Plan,
    text: str,
    overrides: Sequence[str],
    environ: Mapping[str, str],
    *,
    say: Callable[[str], None] = lambda text: None,
    patience: float | None = None,
) -> Submitted:
    """Goes on with a run that is over (`refuse_unless_resumable`) by a new submission.

    `text` and `overrides` are those of the whole way: the first submission's text, and every
    `--set` since.
    """
    run = snapshot.run
    number = snapshot.submission.number + 1 if snapshot.submission else 0
    intent = new_intent(plan, submission=number, overrides=overrides, now=time.time())
    code = gather_again(run, plan, environ)
    written = submission_files(run, plan, text, intent, code)
    withdrawn = _withdraw_stop(run)
    submission = making.add_submission(run, written)
    try:
        started = start(run, submission, environ, fresh=True, say=say, patience=patience)
    except ClustersegError as error:
        # Refused: the run is as it was, unless another process has gone on with it.
        is_as_it_was = getattr(error, "clean", False) and making.withdraw_submission(
            run, submission
        )
        if is_as_it_was and withdrawn:
            files.overwrite(run.stop_file(next_attempt_number(run)), withdrawn)
        raise
    if plan.slurm is not None:
        _cancel_leftovers(run, intent.key, environ, say)
    return started


def is_unfinished(snapshot: Snapshot, environ: Mapping[str, str]) -> bool:
    """Whether `start` brings the last submission to its end: nothing of it has run.

    A job in Slurm's queue that is not released counts, and one of which Slurm does not tell.
    Raises ClustersegError if it is in the queue of another cluster.
    """
    submission, verdict = snapshot.submission, snapshot.verdict
    intent = store.read_intent(submission) if submission else None
    if submission is None or intent is None:
        return verdict.not_started
    if intent.scheduler == "slurm" and not verdict.over:
        from clusterseg.submit.other_cluster import refuse_other_cluster  # noqa: PLC0415 (Slurm's)

        refuse_other_cluster(snapshot.run.run_id, intent.cluster, environ)
    if intent.leader is not None:  # it is made last: without it sbatch was never called
        leader = RunPaths(snapshot.run.root.with_name(intent.leader))
        if not leader.submission(intent.submission).array_record.exists():
            return False
    if verdict.not_started:
        return True
    if verdict.state is not State.QUEUED or intent.scheduler != "slurm" or snapshot.attempt:
        return False
    from clusterseg.submit.slurm_cancellation import is_queued_for_good  # noqa: PLC0415 (Slurm's)

    return not is_queued_for_good(snapshot.run, submission, environ)


def finish(
    snapshot: Snapshot,
    environ: Mapping[str, str],
    *,
    say: Callable[[str], None] = lambda text: None,
    patience: float | None = None,
) -> Submitted:
    """Brings the last submission to its end (`is_unfinished`). Raises ClustersegError.

    A job that ran already, and that Slurm holds, is only released: it is there, once, and of its
    array, where it is of one, no other task is meant.
    """
    run, submission = snapshot.run, snapshot.submission
    if submission is None:
        raise ClustersegError(f"{run.root} holds no submission to resume", code="bad-run")
    if not waits_held(snapshot) or snapshot.job_id is None:
        return start(run, submission, environ, say=say, patience=patience)
    from clusterseg.submit.slurm_release import release  # noqa: PLC0415 (Slurm's)

    release(snapshot.job_id, environ, patience=patience)
    return Submitted(run.run_id, run.root, snapshot.job_id)


def waits_held(snapshot: Snapshot) -> bool:
    """Whether the job of the last attempt was queued again and waits until it is released."""
    attempt, submission = snapshot.attempt, snapshot.submission
    if attempt is None or attempt.claim is None or submission is None:
        return False
    return snapshot.verdict.not_started and attempt.claim.submission >= submission.number


def refuse_unless_resumable(snapshot: Snapshot, *, changed: bool) -> None:
    """Raises ClustersegError if the run is alive, or done and is to go on as it was.

    `changed`: with further `--set` options, so that there may be something to do again.
    """
    run, verdict = snapshot.run.run_id, snapshot.verdict
    if verdict.state is State.DONE and not changed:
        raise ClustersegError(
            f"{run} is done: there is nothing to go on with",
            code="done",
            help=f"to train it for longer: clusterseg resume {run} --set train.epochs=N; "
            f"to run it anew: clusterseg submit {snapshot.run.submission(0).job_yaml}",
        )
    if not verdict.over and not verdict.not_started:
        raise ClustersegError(
            f"{run} is {verdict.state} (job {snapshot.job_id})",
            code="alive",
            help=f"stop it first: clusterseg cancel {run}; or watch it: clusterseg wait {run}",
        )


def refuse_lr_find(run: RunPaths) -> None:
    """Raises ClustersegError for a learning rate range test, of which there is nothing to resume:
    it saves no weights, and planned again its job would be trained."""
    if store.is_lr_find(run):
        raise ClustersegError(
            f"{run.run_id} is a learning rate range test (lr-find): it saves no checkpoint that "
            "could be gone on with",
            code="lr-find",
            help=f"begin it anew: {_lr_find_again(run)}; what it found so far: "
            f"clusterseg status {run.run_id}",
        )


def _lr_find_again(run: RunPaths) -> str:
    """The command line that asks for the same range test: job.yaml knows neither its `--set`
    options nor its optimizers."""
    submission = run.submission(0)
    intent, goal = store.read_intent(submission), read_goal(submission)
    argv = ["clusterseg", "lr-find", str(submission.job_yaml)]
    for name in goal.lr_find.optimizers if goal.lr_find else ():
        argv += ["--optimizer", name]
    for override in intent.overrides if intent else ():
        argv += ["--set", override]
    return shlex.join(argv)


def refuse_unless_own(run: RunPaths) -> None:
    """Raises ClustersegError for another user's run: its files would be executed as ours."""
    owner = run.root.stat().st_uid
    if owner != os.geteuid():
        raise ClustersegError(
            f"{run.root} belongs to another user (uid {owner})",
            code="not-yours",
            help="submit the job as a run of your own",
        )


def planned_directory(submission: SubmissionPaths) -> Path | None:
    """Where a submission was made: relative paths in its job.yaml start there."""
    plan = _planned(submission)
    if plan is None:
        return None
    directory = Path(plan.directory)
    if plan.code is not None and Path(plan.code.directory).is_dir():
        directory = Path(plan.code.directory)
    if not directory.is_dir():
        raise ClustersegError(
            f"{directory}, where {submission.folder} was submitted, is gone",
            code="directory",
            help="submit the job as a new run from where it is to run",
        )
    return directory


def planned_code(submission: SubmissionPaths) -> CodeSource | None:
    """What the snapshot of a submission was taken of; None if it had none."""
    plan = _planned(submission)
    return None if plan is None else plan.code


def _planned(submission: SubmissionPaths) -> _Place | None:
    try:
        return msgspec.json.decode(files.read_capped(submission.plan, LARGEST_PLAN), type=_Place)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


class _Place(Struct):
    """What plan.json says of the place (`clusterseg.plan.model.Plan`)."""

    directory: str
    code: CodeSource | None = None


def _cancel_leftovers(
    run: RunPaths, key: str, environ: Mapping[str, str], say: Callable[[str], None]
) -> None:
    """What earlier submissions left in the queue, held, shall not be released by mistake."""
    from clusterseg.submit.slurm_cancellation import cancel_leftovers  # noqa: PLC0415 (Slurm's)

    try:
        left = cancel_leftovers(run, key, environ)
    except ClustersegError as error:
        say(error.message)
    else:
        if left:
            say(f"cancelled {', '.join(left)}, held since an earlier submission")


def _withdraw_stop(run: RunPaths) -> bytes:
    """An old request to stop what never started must not stop what is started now.

    Returns what the request was.
    """
    stop_file = run.stop_file(next_attempt_number(run))
    try:
        request = files.read_capped(stop_file, _LARGEST_REQUEST)
    except FileNotFoundError:
        return b""
    files.overwrite(stop_file, b"")
    return request
