"""`attempt` and `train`: what the batch script and the launcher start."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(rich_markup_mode=None)

RunDir = Annotated[
    Path,
    typer.Argument(metavar="RUN_DIR", help="The run directory.", show_default=False),
]


@app.command()
def attempt(
    run_dir: RunDir,
    launch: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="-- LAUNCH_LINE...",
            help="What starts the ranks; else the launch line of the plan.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Supervise attempts of a run: claim, start the ranks, watch, stop or restart them.

    Ends with the run's exit code: 0 done (or another job holds the run), 1 failed, 75 stopped
    resumably.
    """
    from clusterseg.supervise.guardian import guard

    def supervise() -> int:
        from clusterseg.supervise import attempt as room  # heavy: after the guardian's fork

        return room.supervise(run_dir, launch or ())

    sys.exit(guard(supervise))


@app.command()
def train(
    run_dir: RunDir,
    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[-- PROGRAM...]",
            help="The program of a `command:` job; without it this rank trains.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run one rank of the attempt that the environment names; started by the launcher."""
    if command:
        from clusterseg.supervise.rank_exec import exec_rank

        exec_rank(run_dir, command, os.environ)
    from clusterseg.train.rank import run

    sys.exit(run(run_dir))
