"""`collect`: the ranks' logs as accuracy and throughput."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from clusterseg.cli.output import AsJson, RunArgument, RunsDir, is_colourful, note, safe
from clusterseg.errors import ClustersegError

if TYPE_CHECKING:
    from clusterseg.collect.summarize import Collected
    from clusterseg.runs.paths import RunPaths

app = typer.Typer(rich_markup_mode=None)

# Columns of the table where nobody can see how wide it may be.
_WIDTH = 100


@app.command("collect")
def collect_command(
    reference: RunArgument,
    *,
    as_json: AsJson = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print the history as CSV, a row an epoch.")
    ] = False,
    plot: Annotated[
        bool, typer.Option("--plot", help="Draw summary.png in the run directory.")
    ] = False,
    runs_dir: RunsDir = None,
) -> None:
    """Merge the ranks' logs into accuracy and throughput.

    Writes summary.json and summary.csv into the run directory, and prints the summary.
    """
    from clusterseg.collect import files
    from clusterseg.runs.store import resolve_run, runs_root

    if as_json and as_csv:
        raise ClustersegError(
            "--json and --csv both print to stdout", code="usage", help="give one of them"
        )
    run = resolve_run(reference, runs_root(runs_dir))
    collected = _collect(run, timeline=plot)
    _write(run, collected, plot)
    if as_json:
        sys.stdout.write(files.as_json(collected.summary).decode())
    elif as_csv:
        sys.stdout.write(files.as_csv(collected.summary))
    else:
        _print(collected)


def show_summary(run: RunPaths) -> None:
    """Collects a run, writes its summary files and prints the table; `submit --follow` ends so."""
    collected = _collect(run, timeline=False)
    _write(run, collected, plot=False)
    _print(collected)


def _collect(run: RunPaths, timeline: bool) -> Collected:
    from clusterseg.cluster.look import look
    from clusterseg.collect.summarize import collect
    from clusterseg.runs.state import Life

    now = look(run)
    alive = not now.verdict.over and now.holder is Life.ALIVE
    return collect(run, now.verdict.state, alive=alive, timeline=timeline)


def _write(run: RunPaths, collected: Collected, plot: bool) -> None:
    """Writes the files; a run directory that can't be written is no reason to print nothing."""
    from clusterseg.collect import files

    try:
        files.write_summary(run, collected.summary)
        if plot:
            from clusterseg.collect.plot import write_plot

            write_plot(run, collected)
            note(f"drawn: {safe(str(run.plot))}")
    except OSError as error:
        why = f"{run.root} can't be written ({error.strerror or error})"
        note(f"note: {safe(why)}; the summary is only printed")


def _print(collected: Collected) -> None:
    from rich.console import Console

    from clusterseg.collect.table import render

    console = Console(
        markup=False,
        highlight=False,
        emoji=False,
        no_color=not is_colourful(sys.stdout),
        width=None if sys.stdout.isatty() else _WIDTH,
    )
    for part in render(collected.summary):
        console.print(part)
