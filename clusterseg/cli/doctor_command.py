"""`clusterseg doctor`: what this machine or cluster can do."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from clusterseg.cli.output import AsJson, is_colourful, note, out, out_json, safe
from clusterseg.errors import ExitCode

app = typer.Typer(rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Makes Typer keep `doctor` a command of its own."""


@app.command()
def doctor(
    ranks: Annotated[
        bool,
        typer.Option(
            "--ranks/--no-ranks",
            help="Start two ranks with every launcher, to see whether it and its libmpi agree.",
        ),
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Show the launchers of this machine, whether they work, and which one is taken.

    Two ranks are started on this host, for some seconds each; with Horovod installed, two more
    that load TensorFlow. Exit code 3: no launcher can start two ranks that meet.
    """
    from clusterseg.submit.doctor import examine

    # On a terminal somebody waits, and wants to know for what.
    told = sys.stderr.isatty() and not as_json
    report = examine(
        os.environ, start_ranks=ranks, tell=lambda what: note(f"{what} …") if told else None
    )
    if as_json:
        out_json(report)
    else:
        from clusterseg.cli import doctor_view

        if sys.stdout.isatty():
            from rich.console import Console

            console = Console(
                markup=False, highlight=False, emoji=False, no_color=not is_colourful(sys.stdout)
            )
            console.print(doctor_view.rich_table(report))
        else:
            for line in doctor_view.plain_table(report):
                out(line)
        for line in doctor_view.facts(report):
            out(safe(line))
    if not report.works:
        raise typer.Exit(ExitCode.CLUSTER)
