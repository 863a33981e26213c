"""`collect`: the ranks' logs as accuracy and throughput."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from clusterseg.errors import ClustersegError

if TYPE_CHECKING:
    from clusterseg.collect.summarize import Collected
    from clusterseg.runs.paths import RunPaths

app = typer.Typer(rich_markup_mode=None)


@app.command("collect")
def collect_command(
    reference: str = typer.Argument(
        ..., metavar="RUN", help="A run id, a unique prefix of one, or a run directory."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
    as_csv: bool = typer.Option(False, "--csv", help="Print the history as CSV, a row an epoch."),
    plot: bool = typer.Option(False, "--plot", help="Also draw summary.png in the run directory."),
    runs_dir: Path | None = typer.Option(
        None, "--runs-dir", help="Where the runs are. [default: $CLUSTERSEG_RUNS, else ./runs]"
    ),
) -> None:
    """Merge the ranks' logs into accuracy and throughput.

    Writes summary.json and summary.csv into the run directory, and prints a table.
    """
    from clusterseg.collect import files
    from clusterseg.runs.store import resolve_run, runs_root

    if as_json and as_csv:
        raise ClustersegError(
            "--json and --csv both print to stdout", code="usage", help="give one of them"
        )
    run = resolve_run(reference, runs_root(runs_dir))
    collected = _collect(run, plot)
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
    from clusterseg.cluster.local import LocalLives
    from clusterseg.collect.summarize import collect
    from clusterseg.runs import snapshot
    from clusterseg.runs.state import Life

    lives = LocalLives()
    now = snapshot.take(run, lives)
    claim = now.attempt.claim if now.attempt else None
    alive = not now.verdict.over and claim is not None and lives.holder(claim) is Life.ALIVE
    return collect(run, now.verdict.state, alive=alive, timeline=timeline)


def _write(run: RunPaths, collected: Collected, plot: bool) -> None:
    """Writes the files; a run directory that can't be written is no reason to print nothing."""
    from clusterseg.collect import files

    try:
        files.write_summary(run, collected.summary)
        if plot:
            from clusterseg.collect.plot import write_plot

            write_plot(run, collected)
            _note(f"plot: {run.plot}")
    except OSError as error:
        reason = error.strerror or str(error)
        _note(f"note: {run.root} can't be written ({reason}): no summary files")


def _print(collected: Collected) -> None:
    from rich.console import Console

    from clusterseg.collect.table import render

    # A pipe has no width of its own: lines there are cut for no one.
    width = None if sys.stdout.isatty() else 120
    console = Console(markup=False, highlight=False, emoji=False, width=width)
    for part in render(collected.summary):
        console.print(part)


def _note(text: str) -> None:
    from clusterseg.runs.text import printable

    sys.stderr.write(printable(text) + "\n")
