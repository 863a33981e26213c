"""`attempt`, `train` and `ranks`: what the batch script and the launcher start."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from clusterseg.cli.output import RunsDir, note
from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.runs.store import runs_root

app = typer.Typer(rich_markup_mode=None)


class Mapping(StrEnum):
    """`placement.map_by`."""

    CORE = "core"
    SOCKET = "socket"
    NUMA = "numa"
    NODE = "node"


class Binding(StrEnum):
    """`placement.bind_to`."""

    CORE = "core"
    SOCKET = "socket"
    NUMA = "numa"
    NONE = "none"


RunDir = Annotated[
    Path,
    typer.Argument(metavar="RUN_DIR", help="The run directory.", show_default=False),
]


@app.command()
def attempt(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN_DIR] -- LAUNCH_LINE...",
            help="The run directory (not with --job), and what starts the ranks; else the launch "
            "line of the plan.",
            show_default=False,
        ),
    ] = None,
    *,
    job: Annotated[
        Path | None,
        typer.Option(
            "--job",
            metavar="JOB.YAML",
            help="In a script that was given to sbatch: make the run directory of this job, or "
            "find it after a requeue.",
            show_default=False,
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="With --job: override a key."),
    ] = None,
    runs_dir: RunsDir = None,
) -> None:
    """Supervise attempts of a run: claim, start the ranks, watch, stop or restart them.

    Ends with the run's exit code: 0 done (or another job holds the run), 1 failed, 75 stopped
    resumably.
    """
    from clusterseg.supervise.guardian import guard

    line = list(words or ())
    if job is None:
        if not line:
            raise ClustersegError("attempt needs a RUN_DIR, or --job", code="usage")
        if overrides or runs_dir:
            raise ClustersegError("--set and --runs-dir go with --job", code="usage")
        run_dir = Path(line.pop(0))
    text = None if job is None else _text_of(job)

    def supervise() -> int:
        from clusterseg.supervise import attempt as room  # heavy: after the guardian's fork

        if text is None:
            return room.supervise(run_dir, line)
        from clusterseg.submit.adoption import adopt, keep_words

        adopted = adopt(text, overrides or (), runs_root(runs_dir), os.environ, line, say=note)
        try:
            return room.supervise(adopted.run.root, adopted.line, environ=adopted.environ)
        except ClustersegError as error:
            keep_words(adopted.run, error.render())
            raise

    sys.exit(guard(supervise))


def _text_of(job: Path) -> str:
    """The job's text, read once: a here-document is gone then, and the ranks must not see it."""
    from clusterseg.submit.job_text import read_text

    text = read_text(job)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return text


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
    *,
    watched: Annotated[
        bool,
        typer.Option(
            "--watched", help="Stay beside the program, and write down its failure.", hidden=True
        ),
    ] = False,
) -> None:
    """Run one rank of the attempt that the environment names; started by the launcher."""
    if command:
        from clusterseg.supervise.rank_exec import exec_rank

        exec_rank(run_dir, command, os.environ, watched=watched)
    from clusterseg.supervise.rank_devices import rank_devices
    from clusterseg.train.rank import run

    sys.exit(run(run_dir, rank_devices))


@app.command(hidden=True)
def ranks(
    program: Annotated[
        list[str],
        typer.Argument(metavar="-- PROGRAM...", help="What every rank runs.", show_default=False),
    ],
    *,
    number: Annotated[int, typer.Option("--ranks", min=1, help="How many.")] = 1,
    cpus_per_rank: Annotated[
        int, typer.Option("--cpus-per-rank", min=1, help="Physical cores of each.")
    ] = 1,
    map_by: Annotated[Mapping, typer.Option("--map-by", help="What they are dealt out over.")] = (
        Mapping.SOCKET
    ),
    bind_to: Annotated[Binding, typer.Option("--bind-to", help="What they may not leave.")] = (
        Binding.CORE
    ),
    report: Annotated[bool, typer.Option("--report-bindings", help="Print their CPUs.")] = False,
) -> None:
    """Start ranks as plain processes of this host: the launcher of `launcher: local`."""
    from clusterseg.cluster.binding import deal_out
    from clusterseg.cluster.ranks import start_ranks
    from clusterseg.runs.affinity import cpu_places

    places = cpu_places(os.sched_getaffinity(0))
    try:
        cpus = deal_out(places, number, cpus_per_rank, map_by=map_by.value, bind_to=bind_to.value)
    except ValueError as error:
        raise ClustersegError(
            f"ranks can't be bound: {error}",
            code="binding",
            help="ask for fewer ranks or cores, or set placement.bind_to: none",
            exit_code=ExitCode.CLUSTER,
        ) from None
    sys.exit(start_ranks(program, cpus, os.environ, report=report))
