"""`evaluate`: the scores of a run's checkpoints, computed anew."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from clusterseg.cli.output import AsJson, RunsDir, note, number, out, out_json, safe
from clusterseg.cli.output import table as aligned
from clusterseg.cli.progress import ProgressLine
from clusterseg.errors import ClustersegError, ExitCode

if TYPE_CHECKING:
    from clusterseg.cluster.fanout import Executor, FanOut, Progress
    from clusterseg.plan.model import Plan
    from clusterseg.runs.paths import RunPaths
    from clusterseg.train.evaluation import Evaluation

app = typer.Typer(rich_markup_mode=None)

_COLUMNS = ("file", "epoch", "step", "val_loss", "val_accuracy", "val_mean_iou")


class Where(StrEnum):
    """Who runs the evaluations."""

    AUTO = "auto"
    LOCAL = "local"
    SLURM = "slurm"


@app.command()
def evaluate(
    reference: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN]",
            help="A run id, a unique prefix of one, or a run directory.",
            show_default=False,
        ),
    ] = None,
    *,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--checkpoint",
            metavar="FILE",
            help="This one: a name in the run's checkpoints/, or a path.",
            show_default=False,
        ),
    ] = None,
    all_checkpoints: Annotated[
        bool, typer.Option("--all-checkpoints", help="All that the run has kept.")
    ] = False,
    executor: Annotated[
        Where,
        typer.Option(
            "--executor", help="auto: Slurm for a run of Slurm's, unless inside a job; else here."
        ),
    ] = Where.AUTO,
    predictions: Annotated[
        Path | None,
        typer.Option(
            "--predictions",
            metavar="DIR",
            help="Score the label maps below this folder, instead of a run's checkpoints.",
            show_default=False,
        ),
    ] = None,
    ground_truth: Annotated[
        Path | None,
        typer.Option(
            "--ground-truth",
            metavar="DIR",
            help="The ground truth of --predictions, such as gtFine/val.",
            show_default=False,
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format", metavar="NAME", help="Of --predictions: cityscapes.", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
    runs_dir: RunsDir = None,
) -> None:
    """Evaluate checkpoints of a run on its validation data, the best one if none is named.

    Writes evaluation.json into the run directory, and prints a table, best first. With
    --predictions and --ground-truth it scores files, as the benchmark's own scripts do.
    """
    if predictions is not None or ground_truth is not None or format is not None:
        if reference is not None or checkpoint is not None or all_checkpoints:
            raise ClustersegError(
                "--predictions scores files: it goes with no run and no checkpoint",
                code="usage",
                help="give --predictions and --ground-truth alone, or a run",
            )
        from clusterseg.cli.score_view import score_files

        score_files(predictions, ground_truth, format, as_json=as_json)
        return
    if reference is None:
        raise ClustersegError(
            "evaluate needs a run, or --predictions and --ground-truth",
            code="usage",
            help="clusterseg list shows the runs",
        )
    from clusterseg.cluster.fanout import Task, fan_out
    from clusterseg.runs.store import resolve_run, runs_root
    from clusterseg.train import evaluation
    from clusterseg.train.evaluate import FUNCTION

    if checkpoint is not None and all_checkpoints:
        raise ClustersegError(
            "--checkpoint and --all-checkpoints exclude each other", code="usage", help="give one"
        )
    run = resolve_run(reference, runs_root(runs_dir))
    plan = _plan(run)
    chosen, messages = evaluation.choose(run, file=checkpoint, every=all_checkpoints)
    for message in messages:
        note(f"note: {safe(message)}")
    tasks = [
        Task(
            name=one.path.rpartition("/")[2],
            arguments={"run_dir": str(run.root), **msgspec.to_builtins(one)},
        )
        for one in chosen
    ]
    with ProgressLine() as shown:
        done = fan_out(
            run,
            FUNCTION,
            tasks,
            _executor(executor, plan),
            progress=lambda now: shown.show(_progress(now)),
        )
    found = evaluation.best_first(
        msgspec.convert(value, evaluation.Evaluation) for value in done.values if value is not None
    )
    _record(run, found)
    if as_json:
        out_json(
            {
                "run": run.run_id,
                "file": str(run.evaluation),
                "checkpoints": found,
                "failures": done.failures,
                "interrupted": done.interrupted,
                "folder": done.folder,
                "problem": done.problem,
            }
        )
    elif found:
        for line in aligned(_COLUMNS, [_row(one) for one in found]):
            out(line)
    _complain(done)
    if done.interrupted:
        raise typer.Exit(ExitCode.INTERRUPTED)
    if done.failures:
        raise typer.Exit(ExitCode.FAILED)


def _plan(run: RunPaths) -> Plan:
    """The plan of the newest submission: what it asks of the cluster holds here, too."""
    from clusterseg.plan.model import Plan
    from clusterseg.runs.files import read_capped
    from clusterseg.runs.store import iter_submissions
    from clusterseg.submit.resumption import LARGEST_PLAN

    submissions = iter_submissions(run)
    why = "there is no submission"
    if submissions:
        try:
            data = read_capped(submissions[-1].plan, LARGEST_PLAN)
            plan = msgspec.json.decode(data, type=Plan)
        except OSError as error:
            why = f"{submissions[-1].plan}: {error.strerror or error}"
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            why = f"{submissions[-1].plan} is damaged ({error})"
        else:
            if plan.spec.train is not None:
                return plan
            raise ClustersegError(
                f"{run.run_id} runs a program of its own (`command:`): clusterseg can't tell how "
                "its checkpoints are evaluated",
                code="no-training",
            )
    raise ClustersegError(
        f"the plan of {run.run_id} can't be read: {why}", code="bad-run", exit_code=ExitCode.FAILED
    )


def _executor(where: Where, plan: Plan) -> Executor:
    variables = plan.spec.environment.variables
    inside_job = "SLURM_JOB_ID" in os.environ
    if where is Where.SLURM or (
        where is Where.AUTO and plan.scheduler == "slurm" and not inside_job
    ):
        from clusterseg.cluster.fanout_slurm import GRACE, SlurmJobs
        from clusterseg.plan.one_task import one_task_options, one_task_setup

        delay = plan.slurm.metadata_delay if plan.slurm else 0.0
        return SlurmJobs(
            f"{plan.name}-evaluate",
            one_task_options(plan),
            setup=one_task_setup(plan),
            grace=GRACE + delay,
        )
    from clusterseg.cluster.fanout_local import LocalJobs

    return LocalJobs(plan.threads, {**os.environ, **variables})


def _record(run: RunPaths, found: tuple[Evaluation, ...]) -> None:
    """Writes the file; a run directory that can't be written is no reason to print nothing."""
    from clusterseg.train import evaluation

    if not found:
        return
    try:
        evaluation.record(run, found)
    except OSError as error:
        why = f"{run.evaluation} can't be written ({error.strerror or error})"
        note(f"note: {safe(why)}; the scores are only printed")


def _row(one: Evaluation) -> list[str]:
    scores = (one.val_loss, one.val_accuracy, one.val_mean_iou)
    return [one.file, str(one.epoch), str(one.step), *(number(score) for score in scores)]


def _complain(done: FanOut) -> None:
    for failure in done.failures:
        tries = f" (tried {failure.tries} times)" if failure.tries > 1 else ""
        note(f"{safe(failure.name)}: {safe(failure.error)}{tries}")
        for line in failure.last_lines:
            note(f"    {safe(line)}")
    if done.folder and not done.interrupted:
        note(f"what its jobs left: {safe(done.folder)}")
    if done.problem:
        note(f"jobs may still be there: {safe(done.problem)}")


def _progress(now: Progress) -> str:
    line = f"evaluated {now.done} of {now.total}"
    line += f", {now.again} tried again" if now.again else ""
    line += f", {now.failed} failed" if now.failed else ""
    return line + (f"; {safe(now.note)}" if now.note else "")
