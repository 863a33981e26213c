"""summary.png: accuracy and loss by epoch, throughput over the run's wall time."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from clusterseg.collect.summarize import Collected
from clusterseg.collect.summary import AttemptSummary, EpochSummary, Summary
from clusterseg.collect.timeline import Stretch
from clusterseg.runs.files import replace
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.text import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Colours of Okabe and Ito (2008), told apart by colour-blind readers too.
_BLUE, _ORANGE, _GREEN, _RED, _GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#7f7f7f"
# Borders of more attempts than this would hide the curve.
_MOST_BORDERS = 40
_UNITS = ((86400.0 * 2, 86400.0, "days"), (7200.0, 3600.0, "hours"), (120.0, 60.0, "minutes"))


def write_plot(run: RunPaths, collected: Collected) -> None:
    """Draws summary.png into the run directory, durably. Raises OSError."""
    replace(run.plot, draw(collected))


def draw(collected: Collected) -> bytes:
    """The picture as PNG; `collected` with its timeline."""
    # No pyplot: it would look for a display and keep every figure.
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    summary = collected.summary
    figure = Figure(figsize=(11, 7.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 2)
    _accuracy(figure.add_subplot(grid[0, 0]), summary)
    _loss(figure.add_subplot(grid[0, 1]), summary.history)
    _throughput(figure.add_subplot(grid[1, :]), collected)
    figure.suptitle(_title(summary), parse_math=False)
    image = io.BytesIO()
    figure.savefig(image, format="png")
    return image.getvalue()


def _title(summary: Summary) -> str:
    ranks = "" if summary.ranks is None else f", {summary.ranks} ranks"
    return f"{one_line(summary.run, 100)}: {summary.state}{ranks}"


def _accuracy(axes: Axes, summary: Summary) -> None:
    history = summary.history
    _curve(axes, history, "val_accuracy", "val accuracy", _BLUE)
    _curve(axes, history, "val_mean_iou", "val mean IoU", _GREEN)
    if summary.best is not None:
        best = summary.best
        axes.plot(best.epoch, best.val_accuracy, "*", color=_BLUE, markersize=14, zorder=3)
        axes.annotate(
            f"best {best.val_accuracy:.4f}",
            (best.epoch, best.val_accuracy),
            xytext=(0, 9),
            textcoords="offset points",
            ha="right",
            color=_BLUE,
        )
    axes.set_ylim(0, 1.08)
    _finish_epochs(axes, "validation", history)


def _loss(axes: Axes, history: Sequence[EpochSummary]) -> None:
    _curve(axes, history, "loss", "training loss", _ORANGE)
    _curve(axes, history, "val_loss", "val loss", _BLUE)
    _finish_epochs(axes, "loss", history)


def _curve(axes: Axes, history: Sequence[EpochSummary], name: str, label: str, colour: str) -> None:
    points = [(entry.epoch, getattr(entry, name)) for entry in history]
    points = [(epoch, value) for epoch, value in points if value is not None]
    if points:
        marker = "o" if len(points) <= 60 else ""
        epochs, values = zip(*points, strict=True)
        axes.plot(epochs, values, color=colour, label=label, marker=marker, markersize=4)


def _finish_epochs(axes: Axes, title: str, history: Sequence[EpochSummary]) -> None:
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    axes.set_title(title)
    axes.set_xlabel("epoch")
    axes.grid(alpha=0.3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if axes.lines:
        axes.legend(loc="best")
    else:
        why = "no figures" if history else "no epoch completed yet"
        _say(axes, why)


def _throughput(axes: Axes, collected: Collected) -> None:
    summary, timeline = collected.summary, collected.timeline
    axes.set_title("throughput")
    axes.set_ylabel("images/s, all ranks")
    axes.grid(alpha=0.3)
    if not timeline:
        _say(axes, "no windows of steps yet")
        return
    zero = min(stretch.t - stretch.seconds for stretch in timeline)
    span = max(stretch.t for stretch in timeline) - zero
    scale, unit = next(((one, name) for least, one, name in _UNITS if span >= least), (1.0, "s"))
    labelled: set[bool] = set()
    for replayed, piece in _pieces(timeline):
        xs: list[float] = []
        ys: list[float] = []
        end = piece[0].t
        for stretch in piece:  # a step function: a window's rate holds over the window
            start = stretch.t - stretch.seconds
            if start - end > stretch.seconds / 2:  # a pause, for validation or saving
                xs.append(math.nan)
                ys.append(math.nan)
            end = stretch.t
            xs += [(start - zero) / scale, (end - zero) / scale]
            ys += [stretch.images_per_second] * 2
        label = None
        if replayed not in labelled:
            labelled.add(replayed)
            label = "replayed later" if replayed else "counted"
        axes.plot(xs, ys, color=_RED if replayed else _BLUE, label=label, linewidth=1.4)
        if replayed:
            axes.axvspan(xs[0], xs[-1], color=_RED, alpha=0.08, linewidth=0)
    if summary.images_per_second is not None:
        axes.axhline(
            summary.images_per_second,
            color=_GREY,
            linestyle="--",
            linewidth=1,
            label=f"mean {summary.images_per_second:.1f} images/s",
        )
    top = 1.4 * max(stretch.images_per_second for stretch in timeline)
    axes.set_ylim(0, top or 1)
    axes.set_xlim(left=0)
    axes.set_xlabel(f"wall time since the first step ({unit})")
    _borders(axes, summary.attempts, timeline, zero, scale)
    axes.legend(loc="lower right", framealpha=0.9)


def _borders(
    axes: Axes,
    attempts: Sequence[AttemptSummary],
    timeline: Sequence[Stretch],
    zero: float,
    scale: float,
) -> None:
    """A line where each attempt begins, named with how it ended."""
    starts = {number: next(iter(own)) for number, own in groupby(timeline, lambda one: one.attempt)}
    if len(starts) > _MOST_BORDERS:
        return
    causes = {entry.attempt: entry.cause or "goes on" for entry in attempts}
    for row, (number, stretch) in enumerate(starts.items()):
        x = (stretch.t - stretch.seconds - zero) / scale
        axes.axvline(x, color=_GREY, linestyle=":", linewidth=1)
        axes.annotate(
            f"attempt {number}: {causes.get(number, '')}",
            (x, 1),
            xycoords=("data", "axes fraction"),
            xytext=(3, -4 - 11 * (row % 4)),  # short attempts stand close together
            textcoords="offset points",
            va="top",
            fontsize=8,
            parse_math=False,
        )


def _pieces(timeline: Sequence[Stretch]) -> Iterator[tuple[bool, list[Stretch]]]:
    """Runs of stretches of one attempt that all count, or were all replayed."""
    for (_, replayed), piece in groupby(timeline, lambda one: (one.attempt, one.replayed)):
        yield replayed, list(piece)


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color=_GREY)
