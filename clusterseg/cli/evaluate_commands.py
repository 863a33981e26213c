"""`evaluate`: the scores of a run's checkpoints, computed anew."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from clusterseg.cli import inference_options
from clusterseg.cli.fanout_view import RunBy, Where, complain, executor_for, plan_of, tell_devices
from clusterseg.cli.output import AsJson, RunsDir, note, number, out, out_json, safe
from clusterseg.cli.output import table as aligned
from clusterseg.cli.progress import ProgressLine
from clusterseg.errors import ClustersegError, ExitCode

if TYPE_CHECKING:
    from clusterseg.cluster.fanout import Progress
    from clusterseg.runs.paths import RunPaths
    from clusterseg.train.evaluation import Evaluation

app = typer.Typer(rich_markup_mode=None)

_COLUMNS = ("file", "epoch", "step", "val_loss", "val_accuracy", "val_mean_iou")


class Part(StrEnum):
    """Of the data set."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


_OF_FILES = frozenset({"predictions", "ground_truth", "format", "plot", "as_json"})


@app.command()
def evaluate(
    context: typer.Context,
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
    executor: RunBy = Where.AUTO,
    part: Annotated[
        Part, typer.Option("--part", help="The part of the data set that is evaluated on.")
    ] = Part.VALIDATION,
    scales: inference_options.Scales = "1",
    flip: inference_options.Flip = False,
    tile: inference_options.Tile = None,
    overlap: inference_options.Overlap = 0.25,
    samples: inference_options.Samples = 0,
    seed: inference_options.Seed = 0,
    refine: inference_options.Refine = 0,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot",
            metavar="FILE",
            help="Draw the confusion matrix of the best one as a PNG.",
            show_default=False,
        ),
    ] = None,
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
        _refuse_others(context)
        from clusterseg.cli.score_view import score_files

        score_files(predictions, ground_truth, format, plot=plot, as_json=as_json)
        return
    if reference is None:
        raise ClustersegError(
            "evaluate needs a run, or --predictions and --ground-truth",
            code="usage",
            help="clusterseg list shows the runs",
        )
    import numpy as np

    from clusterseg.cli.score_view import check_plot, draw
    from clusterseg.cluster.fanout import Task, fan_out
    from clusterseg.runs.store import resolve_run, runs_root
    from clusterseg.train import evaluation
    from clusterseg.train.evaluate import FUNCTION
    from clusterseg.train.inference.source import training_of

    if checkpoint is not None and all_checkpoints:
        raise ClustersegError(
            "--checkpoint and --all-checkpoints exclude each other", code="usage", help="give one"
        )
    check_plot(plot)
    asked = inference_options.how(
        scales, flip, tile=tile, overlap=overlap, samples=samples, seed=seed, refine=refine
    )
    run = resolve_run(reference, runs_root(runs_dir))
    plan = plan_of(run)
    inference_options.check_network(asked, training_of(plan.spec))
    chosen, messages = evaluation.choose(run, file=checkpoint, every=all_checkpoints)
    for message in messages:
        note(f"note: {safe(message)}")
    tasks = [
        Task(
            name=one.path.rpartition("/")[2],
            arguments={
                "run_dir": str(run.root),
                "part": part.value,
                "how": msgspec.to_builtins(asked),
                **msgspec.to_builtins(one),
            },
        )
        for one in chosen
    ]
    with ProgressLine() as shown:
        done = fan_out(
            run,
            FUNCTION,
            tasks,
            executor_for(executor, plan, "evaluate"),
            progress=lambda now: shown.show(_progress(now)),
        )
    values = [value for value in done.values if value is not None]
    found = evaluation.best_first(msgspec.convert(value, evaluation.Evaluation) for value in values)
    tell_devices(values)
    _record(run, found)
    drew = True
    if plot is not None and found:
        best = next(one for one in values if one["file"] == found[0].file)
        ious = {name: one["iou"] for name, one in found[0].classes.items()}
        drew = draw(plot, np.array(best["matrix"], np.int64), ious, found[0].val_mean_iou)
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
        if len(found) == 1:
            _details(found[0])
    complain(done, run.run_id)
    if done.interrupted:
        raise typer.Exit(ExitCode.INTERRUPTED)
    if done.failures or not drew:
        raise typer.Exit(ExitCode.FAILED)


def _refuse_others(context: typer.Context) -> None:
    """Of files nothing is predicted, nor any job started: options of these would do nothing."""
    options = {option.name: option for option in context.command.params}
    others = [
        options[name].opts[0]
        for name, value in context.params.items()
        if name not in _OF_FILES and value != options[name].default
    ]
    if others:
        raise ClustersegError(
            f"--predictions scores files as they are: {', '.join(others)} can't change them",
            code="usage",
            help="leave it out; `predict` takes such options, where they do something",
        )


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


def _details(one: Evaluation) -> None:
    """The scores of its classes, and the benchmark's own."""
    shown = [
        [name, *(number(score[key]) for key in ("iou", "f1", "accuracy"))]
        for name, score in one.classes.items()
    ]
    means = (one.val_mean_iou, one.val_mean_f1, one.val_mean_accuracy)
    shown.append(["mean", *(number(score) for score in means)])
    out()
    for line in aligned(("class", "iou", "f1", "accuracy"), shown):
        out(line)
    out(f"frequency-weighted iou  {number(one.val_frequency_weighted_iou)}")
    if one.cityscapes is not None:
        keys = ("mean_iou", "mean_niou", "mean_category_iou", "mean_category_niou")
        out()
        for line in aligned(keys, [[number(one.cityscapes[key]) for key in keys]]):
            out(line)
        if one.cityscapes["mean_niou"] is None:
            note("note: no instances in the data: there is no nIoU")


def _progress(now: Progress) -> str:
    line = f"evaluated {now.done} of {now.total}"
    line += f", {now.again} tried again" if now.again else ""
    line += f", {now.failed} failed" if now.failed else ""
    return line + (f"; {safe(now.note)}" if now.note else "")
