"""From a plan to a started job: the run directory, the intent, the process.

Killed at any point, this leaves nothing, or a run that says it was never started, or a started
job. `resume` finishes the second; nothing is ever started twice.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from clusterseg import __version__
from clusterseg.cluster.local import LocalJob, start_job
from clusterseg.cluster.processes import host_name
from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.plan.model import Plan
from clusterseg.plan.planner import fill
from clusterseg.plan.variables import ATTEMPT_VARIABLES
from clusterseg.runs import files, store
from clusterseg.runs.paths import RunPaths, SubmissionPaths
from clusterseg.runs.records import Identity, Intent, State
from clusterseg.runs.snapshot import Snapshot, next_attempt_number


class Submitted(Struct, frozen=True):
    """A job that was started. `run` is the run id."""

    run: str
    run_dir: Path
    job_id: str


def submit(
    plan: Plan, text: str, overrides: Sequence[str], root: Path, environ: Mapping[str, str]
) -> Submitted:
    """Makes a new run below `root` and starts it.

    `text` is the job.yaml as the user gave it, `overrides` the `--set` arguments that went into
    `plan`. Raises ClustersegError if the run can't be written or the job can't be started.
    """
    now = time.time()
    run = store.choose_run(root, plan.name, now)
    intent = _intent(plan, submission=0, overrides=overrides, now=now)
    identity = Identity(
        key=intent.key, uid=os.getuid(), name=plan.name, created=now, versions=_versions()
    )
    submission = store.create_run(run, identity, _files(run, plan, text, intent))
    return start(run, submission, environ)


def resume(
    snapshot: Snapshot,
    plan: Plan,
    text: str,
    overrides: Sequence[str],
    environ: Mapping[str, str],
) -> Submitted:
    """Goes on with a run that is over (`refuse_unless_resumable`) by a new submission.

    `text` and `overrides` are those of the whole way: the first submission's text, and every
    `--set` since.
    """
    run = snapshot.run
    number = snapshot.submission.number + 1 if snapshot.submission else 0
    intent = _intent(plan, submission=number, overrides=overrides, now=time.time())
    _withdraw_stop(run)
    submission = store.add_submission(run, _files(run, plan, text, intent))
    return start(run, submission, environ)


def start(run: RunPaths, submission: SubmissionPaths, environ: Mapping[str, str]) -> Submitted:
    """Starts a submission that was written, once. Raises ClustersegError if it can't."""
    bash = shutil.which("bash", path=environ.get("PATH"))
    if bash is None:
        raise ClustersegError(
            "there is no bash on the PATH to run the batch script with",
            code="no-bash",
            exit_code=ExitCode.CLUSTER,
        )
    job = LocalJob(
        argv=(bash, str(submission.batch_script)),
        directory=run.root,  # the script goes to the plan's directory by itself
        # Of a job that submits another one, nothing may be taken for the new run's.
        environ={name: value for name, value in environ.items() if name not in ATTEMPT_VARIABLES},
        output=submission.output,
    )
    job_id = start_job(job, lambda name: files.commit_new(submission.job_id, f"{name}\n".encode()))
    return Submitted(run.run_id, run.root, job_id)


def refuse_unless_resumable(snapshot: Snapshot) -> None:
    """Raises ClustersegError if the run is alive or done, and says what to do instead."""
    run, verdict = snapshot.run.run_id, snapshot.verdict
    if verdict.state is State.DONE:
        raise ClustersegError(
            f"{run} is done: there is nothing to go on with",
            code="done",
            help=f"clusterseg collect {run}; to run it anew: clusterseg submit "
            f"{snapshot.run.submission(0).job_yaml}",
        )
    if not verdict.over and not verdict.not_started:
        raise ClustersegError(
            f"{run} is {verdict.state} (job {snapshot.job_id})",
            code="alive",
            help=f"stop it first: clusterseg cancel {run}; or watch it: clusterseg wait {run}",
        )


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
    """Where the ranks of a submission ran: relative paths in its job.yaml start there."""
    try:
        plan = msgspec.json.decode(files.read_capped(submission.plan, 16 << 20), type=_Directory)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    directory = Path(plan.directory)
    if not directory.is_dir():
        raise ClustersegError(
            f"{directory}, where {submission.folder} was submitted, is gone",
            code="directory",
            help="submit the job as a new run from where it is to run",
        )
    return directory


class _Directory(Struct):
    directory: str


def _files(run: RunPaths, plan: Plan, text: str, intent: Intent) -> store.SubmissionFiles:
    filled = fill(plan, run_dir=str(run.root))
    return store.SubmissionFiles(
        job_yaml=store.job_text(text, intent.overrides),
        plan=msgspec.json.format(msgspec.json.encode(filled), indent=2) + b"\n",
        script=filled.script,
        intent=intent,
    )


def _intent(plan: Plan, *, submission: int, overrides: Sequence[str], now: float) -> Intent:
    return Intent(
        t=now,
        key=os.urandom(16).hex(),
        submission=submission,
        scheduler=plan.scheduler,
        host=host_name(),
        uid=os.getuid(),
        overrides=list(overrides),
    )


def _withdraw_stop(run: RunPaths) -> None:
    """An old request to stop what never started must not stop what is started now."""
    stop_file = run.stop_file(next_attempt_number(run))
    if stop_file.exists():
        files.overwrite(stop_file, b"")


def _versions() -> dict[str, str]:
    return {"clusterseg": __version__, "python": sys.version.split()[0]}
