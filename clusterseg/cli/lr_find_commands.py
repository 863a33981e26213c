"""`lr-find`: a learning rate range test of a job, as a run of its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clusterseg.cli.hints import live_hints, show_hints
from clusterseg.cli.lr_find_view import lr_find_table
from clusterseg.cli.output import (
    AsJson,
    HostsFile,
    RunsDir,
    note,
    out,
    out_json,
    safe,
    with_hosts,
)
from clusterseg.cli.submit_commands import Overrides, Timeout, Wait, refuse_unless_file
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.store import runs_root

if TYPE_CHECKING:
    from clusterseg.runs.snapshot import Snapshot
    from clusterseg.submit.submission import Submitted

app = typer.Typer(rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Makes Typer keep `lr-find` a command of its own."""


@app.command("lr-find")
def lr_find(
    job: Annotated[Path, typer.Argument(metavar="JOB.YAML", help="What would be trained.")],
    *,
    optimizers: Annotated[
        list[str] | None,
        typer.Option(
            "--optimizer",
            metavar="NAME",
            help="Test this one; may be repeated; all: each that is ready; else the job's own.",
            show_default=False,
        ),
    ] = None,
    overrides: Overrides = None,
    hosts: HostsFile = None,
    wait: Wait = False,
    timeout: Timeout = None,
    as_json: AsJson = False,
    runs_dir: RunsDir = None,
) -> None:
    """Look for a learning rate: train a fresh model while the rate grows, for each optimizer.

    A run like any other, on the ranks and nodes of the job; it saves no weights. Writes
    lr-find.json and lr-find.png into its run directory. With --wait it prints what it found.
    """
    from clusterseg.plan.lr_find import lr_find_plan
    from clusterseg.submit.request import read_request
    from clusterseg.submit.submission import submit

    refuse_unless_file(job)
    every = with_hosts(overrides, hosts)
    plan = lr_find_plan(read_request(job, every, os.environ), optimizers or ())
    for warning in plan.warnings:
        note(f"warning: {warning}")
    submitted = submit(
        plan,
        job.read_text(encoding="utf-8"),
        every,
        runs_root(runs_dir),
        os.environ,
        say=note,
        patience=timeout,
    )
    if not as_json and not wait:
        out(submitted.run)
    elif as_json and not wait:
        out_json(_told(submitted))
    note(f"submitted {submitted.run} as {submitted.job_id}")
    run = RunPaths(submitted.run_dir)
    if not wait:
        show_hints(live_hints(run))
        return
    from clusterseg.cli.ending import attend

    note("Ctrl-C leaves it running")
    snapshot, code = attend(run, follow=False, quiet=as_json)
    _tell(submitted, snapshot, as_json=as_json)
    raise typer.Exit(code)


def _told(submitted: Submitted) -> dict[str, object]:
    return {
        "run": submitted.run,
        "run_dir": str(submitted.run_dir),
        "job_id": submitted.job_id,
    }


def _tell(submitted: Submitted, snapshot: Snapshot, *, as_json: bool) -> None:
    """What the run found, though it may have ended before all of it."""
    from clusterseg.runs.lr_find import read_lr_find

    run = snapshot.run
    found = read_lr_find(run)
    if as_json:
        out_json({**_told(submitted), "state": snapshot.verdict.state, "lr_find": found})
        return
    if found is None:
        return
    for line in lr_find_table(found):
        out(line)
    if run.lr_find_plot.is_file():
        note(f"drawn: {safe(str(run.lr_find_plot))}")
