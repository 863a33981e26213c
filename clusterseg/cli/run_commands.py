"""`list`, `status`, `logs`, `wait` and `cancel`: what can be done with runs that exist."""

from __future__ import annotations

from typing import Annotated

import typer

from clusterseg.cli.output import AsJson, RunArgument, RunsDir, note, out, out_json
from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.store import resolve_run, runs_root

app = typer.Typer(rich_markup_mode=None)


@app.command("list")
def list_command(
    limit: Annotated[
        int | None,
        typer.Option("--limit", "-n", min=1, metavar="N", help="Only the newest."),
    ] = None,
    as_json: AsJson = False,
    runs_dir: RunsDir = None,
) -> None:
    """List the runs, newest first."""
    from clusterseg.cli.list_view import list_rows, list_table

    root = runs_root(runs_dir)
    rows, problems = list_rows(root, limit)
    if as_json:
        out_json(rows)
    elif rows:
        for line in list_table(rows):
            out(line)
    for problem in problems:
        note(f"note: {problem}")
    if not rows and not as_json:
        note(f"no runs in {root}; `clusterseg submit job.yaml` makes one")


@app.command()
def status(reference: RunArgument, as_json: AsJson = False, runs_dir: RunsDir = None) -> None:
    """Show one run: state, attempts, progress, ranks."""
    from clusterseg.cli.ending import advise
    from clusterseg.cli.status_view import status_lines, status_view
    from clusterseg.cli.waiting_view import why_it_waits
    from clusterseg.cluster.look import Eyes

    eyes = Eyes()
    snapshot = eyes.look(_run(reference, runs_dir))
    view = status_view(snapshot, why_it_waits(snapshot, eyes.job(snapshot)))
    if as_json:
        out_json(view)
        return
    for line in status_lines(view):
        out(line)
    advise(snapshot)


@app.command()
def logs(
    reference: RunArgument,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on as the logs grow, until the run ends.")
    ] = False,
    rank: Annotated[
        list[int] | None,
        typer.Option("--rank", min=0, metavar="N", help="Only this rank; may be repeated."),
    ] = None,
    attempt: Annotated[
        int | None,
        typer.Option("--attempt", min=0, metavar="N", help="Not the last one."),
    ] = None,
    supervisor: Annotated[
        bool, typer.Option("--supervisor", help="The supervisor's log, not those of the ranks.")
    ] = False,
    lines: Annotated[
        int | None,
        typer.Option("--lines", "-n", min=0, metavar="N", help="Only the last lines of each log."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON object a line: attempt, rank, text.")
    ] = False,
    runs_dir: RunsDir = None,
) -> None:
    """Show the log of a run, by rank and attempt.

    Without ranks' logs, it shows the supervisor's or the batch script's own.
    """
    from clusterseg.cli.log_follow import follow_logs
    from clusterseg.cli.log_view import LogChoice, LogPrinter, show_logs

    if supervisor and rank:
        raise ClustersegError(
            "--supervisor and --rank exclude each other", code="usage", help="give one of them"
        )
    run = _run(reference, runs_dir)
    printer = LogPrinter(as_json=as_json, lines=lines)
    choice = LogChoice(attempt, frozenset(rank) if rank else None, supervisor)
    if follow:
        follow_logs(run, choice, printer)
    else:
        show_logs(run, choice, printer)


@app.command()
def wait(
    reference: RunArgument,
    follow: Annotated[
        bool, typer.Option("--follow", help="Show the live view meanwhile, then the summary.")
    ] = False,
    as_json: AsJson = False,
    runs_dir: RunsDir = None,
) -> None:
    """Wait for a run to end, and end with its exit code."""
    from clusterseg.cli.ending import attend
    from clusterseg.cli.status_view import status_view

    snapshot, code = attend(_run(reference, runs_dir), follow=follow, quiet=as_json)
    if as_json:
        out_json(status_view(snapshot))
    raise typer.Exit(code)


@app.command()
def cancel(
    reference: RunArgument,
    now: Annotated[
        bool, typer.Option("--now", help="End it at once; what is not saved is lost.")
    ] = False,
    timeout: Annotated[
        float,
        typer.Option("--timeout", min=0, metavar="SECONDS", help="How long to wait for its end."),
    ] = 300.0,
    as_json: AsJson = False,
    runs_dir: RunsDir = None,
) -> None:
    """Stop a run resumably, or at once with --now.

    Ends with 0 once the run is over.
    """
    from clusterseg.cli.ending import advise, end_sentence
    from clusterseg.cli.status_view import status_view
    from clusterseg.cluster.look import look
    from clusterseg.submit.cancellation import ask_to_stop, end_processes, wait_until_stopped
    from clusterseg.submit.resumption import refuse_unless_own

    run = _run(reference, runs_dir)
    refuse_unless_own(run)
    snapshot = look(run)
    # A killed supervisor may have left its ranks; they can be ended, if not asked to save.
    killed = snapshot.attempt is not None and snapshot.attempt.end is None
    if not snapshot.verdict.over or (now and killed):
        ask_to_stop(snapshot, now=now)
        if now:
            snapshot = end_processes(snapshot, note)
        else:
            note(f"asked {run.run_id} to save and stop; waiting for at most {timeout:.0f} s")
            snapshot = wait_until_stopped(snapshot, timeout, now=False)
    if as_json:
        out_json(status_view(snapshot))
    if snapshot.verdict.over:
        note(end_sentence(snapshot))
        advise(snapshot)
        return
    error = ClustersegError(
        f"{run.run_id} is still {snapshot.verdict.state}; it was asked to stop",
        code="still-running",
        help=f"clusterseg wait {run.run_id}; or end it: clusterseg cancel --now {run.run_id}",
        exit_code=ExitCode.FAILED,
    )
    if as_json:  # stdout has its one document
        note(error.render())
        raise typer.Exit(error.exit_code)
    raise error


def _run(reference: str, runs_dir: RunsDir) -> RunPaths:
    return resolve_run(reference, runs_root(runs_dir))
