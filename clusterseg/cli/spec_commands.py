"""`clusterseg check` and `clusterseg schema`: what a job.yaml says and may say."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clusterseg.cli.output import AsJson, HostsFile, out, out_json, with_hosts

if TYPE_CHECKING:
    from clusterseg.plan.model import Plan

app = typer.Typer(rich_markup_mode=None)


@app.command()
def check(
    job: Annotated[Path, typer.Argument(metavar="JOB.YAML", help="The job.yaml to check.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key: resources.nodes=2."),
    ] = None,
    hosts: HostsFile = None,
    as_json: AsJson = False,
) -> None:
    """Check a job.yaml and explain its solved geometry.

    All that is wrong is reported at once, each with its line and column, and exit code 2.
    """
    from clusterseg.submit.request import read_request

    plan = read_request(job, with_hosts(overrides, hosts), os.environ)
    if as_json:
        out_json({"ok": True, **_summary(plan)})
        return
    from clusterseg.plan.words import describe
    from clusterseg.spec.errors import visible

    out(visible(f"{job}: {_work(plan)}"))
    out(describe(plan).rstrip("\n"))


@app.command()
def schema(
    key: Annotated[
        str,
        typer.Argument(
            metavar="[KEY]",
            help="Only this key's schema: resources, train.optimizer.",
            show_default=False,
        ),
    ] = "",
) -> None:
    """Print the JSON Schema of job.yaml, for editors.

    Save it and name it in the first line of a job.yaml:
    # yaml-language-server: $schema=job.schema.json
    """
    import json

    from clusterseg.spec import schema as schemas

    out(json.dumps(schemas.schema(key), indent=2, ensure_ascii=False))


def _summary(plan: Plan) -> dict[str, Any]:
    """What a tool wants to know of a plan before it is submitted."""
    return {
        "name": plan.name,
        "scheduler": plan.scheduler,
        "launcher": plan.launcher,
        "launcher_version": plan.launcher_version,
        "why": plan.why,
        "mpirun": plan.mpirun,
        "libmpi": plan.libmpi,
        "communicator": plan.communicator,
        "geometry": plan.geometry,
        "threads": plan.threads,
        "time_limit": plan.time_limit,
        "warnings": plan.warnings,
    }


def _work(plan: Plan) -> str:
    """What the job does, in a line."""
    from shlex import join

    from clusterseg.spec.units import format_time

    spec = plan.spec
    limit = "" if plan.time_limit is None else f", at most {format_time(plan.time_limit)}"
    if spec.train is None:
        return f"{spec.name} runs {join(spec.command or ())}{limit}"
    train = spec.train
    images = train.batch_size * train.accumulate * plan.ranks
    return (
        f"{spec.name} trains {train.model.name} on {train.data.format} ({train.data.root}) for "
        f"{train.epochs} epoch{'s' * (train.epochs != 1)}, {images} images a step{limit}"
    )
