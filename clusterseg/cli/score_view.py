"""`evaluate --predictions`: scores files against files, and prints the scores of a benchmark."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from clusterseg.cli.output import note, number, out, out_json, safe, table
from clusterseg.cli.progress import ProgressLine
from clusterseg.errors import ClustersegError, ExitCode

if TYPE_CHECKING:
    from clusterseg.metrics.cityscapes import Score, Scores
    from clusterseg.metrics.scores import Matrix

FORMATS = ("cityscapes",)
_MOST_THREADS = 16


def score_files(
    predictions: Path | None,
    truth: Path | None,
    format: str | None,
    *,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Prints the scores of the files in `predictions` on those in `truth`.

    Raises ClustersegError for half a request, an unknown format, and what the files are to blame
    for.
    """
    if predictions is None or truth is None:
        missing = "--ground-truth" if truth is None else "--predictions"
        raise ClustersegError(
            f"{missing} is missing: files are scored against files",
            code="usage",
            help="clusterseg evaluate --predictions DIR --ground-truth DIR --format cityscapes",
        )
    if format not in (None, *FORMATS):
        raise ClustersegError(
            f"no scores are known for the format {format!r}",
            code="unknown-name",
            help=f"--format is one of {', '.join(FORMATS)}",
        )
    check_plot(plot)
    from clusterseg.metrics.cityscapes import drawn, judge
    from clusterseg.metrics.files import look_like_train_ids
    from clusterseg.metrics.files import score_files as count
    from clusterseg.metrics.memory import keep_freed_memory
    from clusterseg.metrics.pairing import pair

    pairs = pair(predictions, truth)
    if pairs[0].instances is None:
        note(f"note: {truth} holds no instanceIds files: there is no nIoU")
    keep_freed_memory()
    threads = min(len(os.sched_getaffinity(0)), _MOST_THREADS)
    with ProgressLine() as line:
        total = count(
            pairs, threads=threads, done=lambda done: line.count("scored", done, len(pairs))
        )
    if look_like_train_ids(total):
        note(
            "note: no prediction holds more than 18, but the ground truth does: if these are train "
            "ids, the scores mean nothing, for predictions hold labelIds"
        )
    scores = judge(total)
    drew = True
    if plot is not None:
        ious = {name: score.iou for name, score in scores.classes.items()}
        drew = draw(plot, drawn(total), ious, scores.mean_classes.iou, more=("none of these",))
    if as_json:
        out_json({**scores.record(), "pictures": len(pairs)})
    else:
        for text in lines_of(scores):
            out(text)
    if not drew:
        raise typer.Exit(ExitCode.FAILED)


def check_plot(path: Path | None) -> None:
    """Raises ClustersegError where no picture can be written, before there is one."""
    if path is None:
        return
    if not os.path.isdir(path.absolute().parent):  # noqa: PTH112 (never raises)
        raise ClustersegError(
            f"--plot {path}: there is no folder {path.parent}", code="usage", help="make it first"
        )
    if os.path.isdir(path):  # noqa: PTH112 (never raises)
        raise ClustersegError(
            f"--plot {path} is a folder", code="usage", help="give the file to write"
        )


def draw(
    path: Path,
    matrix: Matrix,
    ious: Mapping[str, float | None],
    mean: float | None,
    *,
    more: Sequence[str] = (),
) -> bool:
    """Writes a confusion matrix as PNG (`draw_confusion`). Whether it could be written; if not, it
    says so: the scores are worth telling all the same."""
    from clusterseg.metrics.plot import draw_confusion
    from clusterseg.runs.files import replace

    data = draw_confusion(matrix, ious, mean, more=more)
    try:
        replace(path, data, private=False)
    except OSError as error:
        note(f"--plot: {safe(str(path))} can't be written ({error.strerror or error})")
        return False
    return True


def lines_of(scores: Scores) -> list[str]:
    """Classes, then categories, each with their mean, as aligned lines."""
    classes = [_row(name, one) for name, one in scores.classes.items()]
    categories = [_row(name, one) for name, one in scores.categories.items()]
    means = _row("mean", scores.mean_classes), _row("mean", scores.mean_categories)
    lines = table(("class", "iou", "niou"), [*classes, means[0]])
    return [*lines, "", *table(("category", "iou", "niou"), [*categories, means[1]])]


def _row(name: str, one: Score) -> list[str]:
    return [name, number(one.iou), number(one.niou)]
