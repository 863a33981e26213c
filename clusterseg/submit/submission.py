"""From a plan to a started job: the run directory, the intent, the process.

Killed at any point, this leaves nothing, or a run that says it was never started, or a started
job. `resume` finishes the second; nothing is ever started twice.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
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
from clusterseg.runs import files, making, store
from clusterseg.runs.paths import RunPaths, SubmissionPaths
from clusterseg.runs.records import Identity, Intent
from clusterseg.submit.code import Code, gather


class Submitted(Struct, frozen=True):
    """A job that was started. `run` is the run id."""

    run: str
    run_dir: Path
    job_id: str


def submit(
    plan: Plan,
    text: str,
    overrides: Sequence[str],
    root: Path,
    environ: Mapping[str, str],
    *,
    say: Callable[[str], None] = lambda text: None,
    patience: float | None = None,
) -> Submitted:
    """Makes a new run below `root` and starts it.

    `text` is the job.yaml as the user gave it, `overrides` the `--set` arguments that went into
    `plan`. `patience`: seconds for a Slurm that does not answer. Raises ClustersegError if the
    run can't be written or the job can't be started.
    """
    now = time.time()
    run = making.choose_run(root, plan.name, now)
    intent = new_intent(plan, submission=0, overrides=overrides, now=now)
    code = gather(plan, environ)
    written = submission_files(run, plan, text, intent, code)
    submission = making.create_run(run, new_identity(plan, intent, now), written, code.copy)
    try:
        return start(run, submission, environ, fresh=True, say=say, patience=patience)
    except ClustersegError as error:
        if getattr(error, "clean", False) and not making.withdraw_run(run):  # refused
            error.help = f"another process went on with it: clusterseg status {run.run_id}"
        raise


def start(
    run: RunPaths,
    submission: SubmissionPaths,
    environ: Mapping[str, str],
    *,
    fresh: bool = False,
    say: Callable[[str], None] = lambda text: None,
    patience: float | None = None,
) -> Submitted:
    """Starts a submission that was written, once; finishes what a killed client began.

    `fresh`: this process has just written it, and nobody else started it. Raises
    ClustersegError if it can't.
    """
    intent = store.read_intent(submission)
    if intent is not None and intent.scheduler == "slurm":
        from clusterseg.submit.slurm_submission import start_in_slurm  # noqa: PLC0415 (Slurm's)

        job_id = start_in_slurm(run, submission, environ, fresh=fresh, say=say, patience=patience)
    else:
        job_id = _start_here(run, submission, environ)
    return Submitted(run.run_id, run.root, job_id)


def _start_here(run: RunPaths, submission: SubmissionPaths, environ: Mapping[str, str]) -> str:
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
    return start_job(job, lambda name: files.commit_new(submission.job_id, f"{name}\n".encode()))


def submission_files(
    run: RunPaths,
    plan: Plan,
    text: str,
    intent: Intent,
    code: Code,
    *,
    array: making.ArrayFiles | None = None,
    after: str | None = None,
) -> making.SubmissionFiles:
    """What is written for a plan, with everything filled in that is known now.

    `after`: the id of the job to wait for; None: it is looked up. Raises ClustersegError if
    the run that it names can't be waited for.
    """
    output = str(run.submission(intent.submission).output)
    waits = job_before(plan, run.root.parent) if after is None else after
    filled = fill(plan, run_dir=str(run.root), output=output, after=waits)
    return making.SubmissionFiles(
        job_yaml=store.job_text(text, intent.overrides),
        plan=msgspec.json.format(msgspec.json.encode(filled), indent=2) + b"\n",
        script=filled.script,
        intent=intent,
        git=code.git,
        diff=code.diff,
        array=array,
    )


def new_intent(plan: Plan, *, submission: int, overrides: Sequence[str], now: float) -> Intent:
    """The record that goes to the disk before anything is started; `now` in unix seconds."""
    return Intent(
        t=now,
        key=os.urandom(16).hex(),
        submission=submission,
        scheduler=plan.scheduler,
        host=host_name(),
        uid=os.getuid(),
        overrides=list(overrides),
        task=None if plan.slurm is None else _only_task(plan.slurm.array),
        cluster=None if plan.slurm is None else _cluster(),
    )


def new_identity(plan: Plan, intent: Intent, now: float) -> Identity:
    """Who a new run is: its key is that of its first submission."""
    return Identity(
        key=intent.key,
        uid=os.getuid(),
        name=plan.name,
        created=now,
        versions=_versions(),
        task=plan.task,
    )


def _cluster() -> str | None:
    from clusterseg.cluster.slurm.configuration import (  # noqa: PLC0415 (local runs need it not)
        present_cluster,
    )

    return present_cluster(os.environ)


def _only_task(array: str | None) -> int | None:
    """The number of the one task that a resumed run of an array is."""
    return int(array) if array is not None and array.isdigit() else None


def job_before(plan: Plan, root: Path) -> str:
    """The id of the job that this one is to wait for; empty: of none."""
    if plan.slurm is None or plan.spec.slurm.after is None:
        return ""
    from clusterseg.submit.chain import job_to_wait_for  # noqa: PLC0415 (seldom)

    return job_to_wait_for(plan.spec.slurm.after, root)


def _versions() -> dict[str, str]:
    return {"clusterseg": __version__, "python": sys.version.split()[0]}
