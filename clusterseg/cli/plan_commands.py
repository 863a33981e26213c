"""`clusterseg render`: the plan, without doing anything."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clusterseg.cli.output import HostsFile, RunsDir, with_hosts

if TYPE_CHECKING:
    from clusterseg.plan.model import Plan

app = typer.Typer(rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Makes Typer keep `render` a command of its own."""


@app.command()
def render(
    job: Annotated[Path, typer.Argument(help="The job.yaml.")],
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="Write the script to this file: for Slurm one that holds all, for sbatch FILE; "
            "of a local job one to read.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole plan.")] = False,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key.")
    ] = None,
    hosts: HostsFile = None,
    runs_dir: RunsDir = None,
) -> None:
    """Print the plan or script that submit would execute; nothing is started.

    The script goes to standard output, what there is to say about it to standard error.
    """
    from clusterseg.spec.reader import text_of
    from clusterseg.submit.request import read_request

    text = text_of(job)
    if output is not None:
        _refuse_to_overwrite(job, output)
    every = with_hosts(overrides, hosts)
    plan = read_request(job, every, os.environ, text=text)
    if output is not None:
        bare = plan.slurm is not None
        script = _bare(plan, text, every, runs_dir) if bare else plan.script
        _write(output, script)
    if as_json:
        import msgspec

        sys.stdout.write(msgspec.json.format(msgspec.json.encode(plan)).decode() + "\n")
        return
    if output is None:
        sys.stdout.write(plan.script)
        sys.stdout.flush()
    from clusterseg.plan.words import describe

    said = ""
    if output is not None:
        said = f"script: {output}\n"
    elif plan.slurm is not None and plan.slurm.array is not None:
        said = "array: submit gives sbatch a script that runs this one for each task's own run\n"
    if output is not None and plan.slurm is None:
        said += f"warning: this script is for reading; clusterseg submit {job} starts a local job\n"
    sys.stderr.write(describe(plan) + said)


def _bare(plan: Plan, text: str, overrides: Sequence[str], runs_dir: Path | None) -> str:
    """The script for a bare sbatch, which makes its own run directory."""
    from clusterseg.errors import ClustersegError
    from clusterseg.plan.bare_script import bare_script
    from clusterseg.plan.planner import fill
    from clusterseg.runs.store import runs_root
    from clusterseg.spec.frozen import frozen_overrides

    if plan.spec.slurm.after is not None:
        # Slurm gives the numbers of jobs again, and the script is given to sbatch who knows when.
        raise ClustersegError(
            "slurm.after: a script for sbatch can't wait for a run: the number of its job may be "
            "another job's by then",
            code="after",
            help="clusterseg submit waits for it; or --set slurm.after=null here, and then "
            "sbatch --dependency=afterany:JOB FILE",
        )
    frozen = [*frozen_overrides(text, overrides, os.environ), *_solved(plan)]
    return bare_script(fill(plan, after=""), text, frozen, str(runs_root(runs_dir)))


def _solved(plan: Plan) -> list[str]:
    """What of the geometry was solved, as it is asked of Slurm: inside of the job, which may run in
    another partition, the nodes may be less well known."""
    given, geometry = plan.spec.resources, plan.geometry
    solved = {
        "nodes": (given.nodes, geometry.nodes),
        "ranks": (given.ranks, geometry.ranks),
        "cpus_per_rank": (None if given.cpus_per_rank == "auto" else 1, geometry.cpus_per_rank),
    }
    return [f"resources.{key}={found}" for key, (said, found) in solved.items() if said is None]


def _refuse_to_overwrite(job: Path, output: Path) -> None:
    """The script must not take the place of what it is made of, under whatever name."""
    from clusterseg.errors import ClustersegError

    if job.is_file() and output.is_file() and job.samefile(output):
        raise ClustersegError(
            f"-o {output} is the job.yaml itself, and would be lost",
            code="output",
            help=f"give another -o, such as {job.with_suffix('.sh').name}",
        )


def _write(file: Path, script: str) -> None:
    """Writes the script for its owner alone, as a program; half of one is never left."""
    from clusterseg.errors import ClustersegError
    from clusterseg.runs import files

    try:
        if file.is_relative_to("/dev") or (file.exists() and not file.is_file()):
            # A terminal, a pipe, what standard output is: nothing that could be replaced.
            file.write_text(script, encoding="utf-8")
        else:
            whole = Path(os.path.realpath(file))
            files.replace(whole, script.encode())
            whole.chmod(0o700)
    except OSError as error:
        raise ClustersegError(
            f"{file} can't be written: {error.strerror}", code="output", help="give another -o"
        ) from None
