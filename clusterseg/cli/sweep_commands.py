"""`sweep`: one job.yaml with several values for some keys."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from clusterseg.cli.output import AsJson, HostsFile, RunsDir, note, with_hosts
from clusterseg.cli.submit_commands import Overrides, Timeout, Wait, refuse_unless_file
from clusterseg.runs.store import runs_root

app = typer.Typer(rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Makes Typer keep `sweep` a command of its own."""


@app.command()
def sweep(
    job: Annotated[Path, typer.Argument(metavar="JOB.YAML", help="What to run.")],
    over: Annotated[
        list[str],
        typer.Option(
            "--over",
            metavar="KEY=VALUE,VALUE,...",
            help="Run the job with each of these values; repeated: with each combination.",
            show_default=False,
        ),
    ],
    *,
    overrides: Overrides = None,
    hosts: HostsFile = None,
    parallel: Annotated[
        int | None,
        typer.Option(
            "--parallel",
            min=1,
            metavar="N",
            help="So many at a time; else all that get nodes, without Slurm one.",
            show_default=False,
        ),
    ] = None,
    wait: Wait = False,
    timeout: Timeout = None,
    as_json: AsJson = False,
    runs_dir: RunsDir = None,
) -> None:
    """Run a job with each combination of values: one array of Slurm, each task a run of its own.

    Without Slurm one after the other. Prints the run ids.
    """
    from clusterseg.cli.several import after_several
    from clusterseg.submit.sweep import plan_sweep, submit_sweep

    refuse_unless_file(job)
    members = plan_sweep(job, over, with_hosts(overrides, hosts), os.environ)
    for warning in dict.fromkeys(each for one in members for each in one.plan.warnings):
        note(f"warning: {warning}")
    text = job.read_text(encoding="utf-8")
    job_id, started = submit_sweep(
        members, parallel, text, runs_root(runs_dir), os.environ, say=note, patience=timeout
    )
    after_several(job_id, started, wait=wait, as_json=as_json)
