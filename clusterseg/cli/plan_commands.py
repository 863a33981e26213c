"""`clusterseg render`: the plan, without doing anything."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Makes Typer keep `render` a command of its own."""


@app.command()
def render(
    job: Annotated[Path, typer.Argument(help="The job.yaml.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the script to this file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole plan.")] = False,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key.")
    ] = None,
) -> None:
    """Print the plan or script that submit would execute; nothing is started.

    The script goes to standard output, what there is to say about it to standard error.
    """
    from clusterseg.submit.request import read_request

    plan = read_request(job, overrides or (), os.environ)
    if output is not None:
        _write(output, plan.script)
    if as_json:
        import msgspec

        sys.stdout.write(msgspec.json.format(msgspec.json.encode(plan)).decode() + "\n")
        return
    if output is None:
        sys.stdout.write(plan.script)
        sys.stdout.flush()
    from clusterseg.plan.words import describe

    sys.stderr.write(describe(plan) + (f"script: {output}\n" if output else ""))


def _write(file: Path, script: str) -> None:
    """Writes the script for its owner alone, as a program."""
    from clusterseg.errors import ClustersegError

    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o700)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(script)
    except OSError as error:
        raise ClustersegError(
            f"{file} can't be written: {error.strerror}", code="output", help="give another -o"
        ) from None
