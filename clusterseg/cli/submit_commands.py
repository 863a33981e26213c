"""`submit` and `resume`: from a job.yaml, or a run that is over, to a started job."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Annotated

import typer

from clusterseg.cli.hints import live_hints, show_hints
from clusterseg.cli.output import (
    AsJson,
    HostsFile,
    RunArgument,
    RunsDir,
    note,
    out,
    out_json,
    with_hosts,
)
from clusterseg.errors import ClustersegError
from clusterseg.runs.paths import RunPaths, SubmissionPaths
from clusterseg.runs.store import read_intent, resolve_run, runs_root
from clusterseg.submit.request import read_request
from clusterseg.submit.submission import Submitted
from clusterseg.submit.submission import submit as submit_run

app = typer.Typer(rich_markup_mode=None)

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key; may be repeated."),
]
Wait = Annotated[
    bool, typer.Option("--wait", help="Wait for the end; end with the run's exit code.")
]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        min=0,
        metavar="SECONDS",
        help="How long to try when Slurm does not answer; else 300.",
        show_default=False,
    ),
]
Follow = Annotated[
    bool, typer.Option("--follow", help="Wait with a live view, then print the summary.")
]


@app.command()
def submit(
    job: Annotated[Path, typer.Argument(metavar="JOB.YAML", help="What to run.")],
    *,
    overrides: Overrides = None,
    hosts: HostsFile = None,
    wait: Wait = False,
    follow: Follow = False,
    timeout: Timeout = None,
    as_json: AsJson = False,
    runs_dir: RunsDir = None,
) -> None:
    """Start a job; returns at once, the job outlives the terminal.

    Prints the run id. With --wait or --follow, Ctrl-C leaves the job running.
    """
    refuse_unless_file(job)
    every = with_hosts(overrides, hosts)
    plan = read_request(job, every, os.environ)
    for warning in plan.warnings:
        note(f"warning: {warning}")
    text = job.read_text(encoding="utf-8")
    root = runs_root(runs_dir)
    if plan.spec.slurm.array is not None:
        from clusterseg.cli.several import after_several
        from clusterseg.submit.array import submit_array, task_members, throttle_of

        if follow:
            raise ClustersegError(
                "--follow shows one run, and an array is several",
                code="usage",
                help="leave it out; then clusterseg wait --follow RUN, with one of them",
            )
        members = task_members(plan, every)
        started = submit_array(
            members,
            throttle_of(plan.spec.slurm.array),
            text,
            root,
            os.environ,
            say=note,
            patience=timeout,
        )
        base = started[0].job_id.partition("_")[0]
        after_several(base, started, wait=wait, as_json=as_json)
        return
    submitted = submit_run(plan, text, every, root, os.environ, say=note, patience=timeout)
    _after(submitted, "submitted", wait=wait, follow=follow, as_json=as_json)


@app.command()
def resume(
    reference: RunArgument,
    *,
    overrides: Overrides = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Go on though the checkpoint differs from the job, in keys that leave its "
            "tensors as they are.",
        ),
    ] = False,
    wait: Wait = False,
    follow: Follow = False,
    timeout: Timeout = None,
    as_json: AsJson = False,
    runs_dir: RunsDir = None,
) -> None:
    """Go on with a run that stopped, failed or was never started.

    A new job in the same run directory, from the last good checkpoint. --set changes the job
    from here on; earlier overrides still hold. A run that is done goes on only with a --set, such
    as --set train.epochs=N. A job that the checkpoint does not fit is refused, with every key.
    """
    from clusterseg.cli.data_seen import identity_of_data
    from clusterseg.cluster.look import look
    from clusterseg.submit.fitting import with_force
    from clusterseg.submit.resumption import (
        finish,
        is_unfinished,
        planned_code,
        planned_directory,
        refuse_lr_find,
        refuse_unless_own,
        refuse_unless_resumable,
        waits_held,
    )
    from clusterseg.submit.resumption import resume as resume_run

    run = resolve_run(reference, runs_root(runs_dir))
    refuse_unless_own(run)
    snapshot = look(run)
    unfinished = is_unfinished(snapshot, os.environ)
    if not unfinished:
        refuse_lr_find(run)
        refuse_unless_resumable(snapshot, changed=bool(overrides))
    submission = snapshot.submission
    if submission is None:
        raise ClustersegError(f"{run.root} holds no submission to resume", code="bad-run")
    submitted = None
    if unfinished:
        if overrides or force:
            why = "waits in Slurm's queue, held" if waits_held(snapshot) else "was never started"
            raise ClustersegError(
                f"{run.run_id} {why}, so that nothing can be changed in it",
                code="never-started",
                help="resume it without --set and --force, or submit the changed job as a new run",
            )
        try:
            submitted = finish(snapshot, os.environ, say=note, patience=timeout)
        except ClustersegError as error:
            if error.code != "job-gone":
                raise
    if submitted is None:
        refuse_lr_find(run)
        every = [*_earlier_overrides(submission), *(overrides or ())]
        directory = planned_directory(submission)
        with contextlib.chdir(directory) if directory else contextlib.nullcontext():
            code = planned_code(submission)
            plan = read_request(submission.job_yaml, every, os.environ, begins=False, code=code)
        plan = with_force(
            plan,
            snapshot,
            force=force,
            data=lambda: identity_of_data(plan, say=note),
            say=note,
        )
        for warning in plan.warnings:
            note(f"warning: {warning}")
        text = submission.job_yaml.read_text(encoding="utf-8")
        submitted = resume_run(snapshot, plan, text, every, os.environ, say=note, patience=timeout)
    _after(submitted, "resumed", wait=wait, follow=follow, as_json=as_json)


def refuse_unless_file(job: Path) -> None:
    """Raises ClustersegError for a pipe or a folder; a file that is not there is told later."""
    if job.exists() and not job.is_file():
        raise ClustersegError(
            f"{job} is not a plain file: it is read more than once, and kept for `resume`",
            code="not-a-file",
            help="write the job to a file and submit that",
        )


def _earlier_overrides(submission: SubmissionPaths) -> list[str]:
    intent = read_intent(submission)
    if intent is None:
        raise ClustersegError(
            f"{submission.intent} can't be read, so that it is not known what was overridden",
            code="bad-run",
            help=f"submit it as a new run: clusterseg submit {submission.job_yaml} --set …",
        )
    return intent.overrides


def _after(submitted: Submitted, verb: str, *, wait: bool, follow: bool, as_json: bool) -> None:
    """Says what was started and what can be done now; stays with the run if asked to."""
    run = RunPaths(submitted.run_dir)
    if as_json:
        out_json(
            {
                "run": submitted.run,
                "run_dir": str(submitted.run_dir),
                "job_id": submitted.job_id,
            }
        )
    else:
        out(submitted.run)
    note(f"{verb} {submitted.run} as {submitted.job_id}")
    if wait or follow:
        from clusterseg.cli.ending import attend

        note("Ctrl-C leaves it running")
        _, code = attend(run, follow=follow, quiet=as_json)
        raise typer.Exit(code)
    if not as_json:
        show_hints(live_hints(run))
