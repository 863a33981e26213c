"""lr-find.png: the loss by learning rate, a panel an optimizer, what is suggested marked in it."""

from __future__ import annotations

import io
import math
import textwrap
from typing import TYPE_CHECKING

from clusterseg.runs.lr_find import Ending, LrFind, Sweep
from clusterseg.runs.text import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Colours of Okabe and Ito (2008), told apart by colour-blind readers too.
_CURVE, _SUGGESTED, _MINIMUM, _OTHERS = "#0072B2", "#D55E00", "#009E73", "#c4c4c4"
_COLUMNS = 4
_ENDED = {
    Ending.WHOLE_RANGE: "whole range",
    Ending.DIVERGED: "ended: diverged",
    Ending.NOT_FINITE: "ended: not finite",
    Ending.STOPPED: "ended: asked to stop",
}


def draw(found: LrFind) -> bytes:
    """The picture as PNG.

    A panel shows the losses as points, their smoothed curve, and in grey those of the other
    optimizers; all panels have the same axes.
    """
    # No pyplot: it would look for a display and keep every figure.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = len(found.sweeps)
    columns = min(count, _COLUMNS) if count != _COLUMNS + 1 else 3  # 3 + 2, not 4 + 1
    rows = -(-count // columns)
    width, height = (9.0, 5.6) if count == 1 else (max(4.2 * columns, 8.4), 3.4 * rows + 1.0)
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    panels = list(grid.flat)
    top = _top(found)
    for axes, sweep in zip(panels, found.sweeps, strict=False):
        others = [one for one in found.sweeps if one is not sweep]
        _panel(axes, sweep, others, top)
    for axes in panels[count:]:
        axes.set_visible(False)
    for place, axes in enumerate(panels[:count]):
        if place % columns == 0:
            axes.set_ylabel("loss of the global batch")
        if place + columns >= count:  # nothing below it
            axes.set_xlabel("learning rate")
            axes.tick_params(labelbottom=True)
    ranks = "1 rank" if found.ranks == 1 else f"{found.ranks} ranks"
    figure.suptitle(
        f"{one_line(found.run, 100)}: learning rate range test, {ranks}, "
        f"global batch {found.global_batch}",
        parse_math=False,
    )
    image = io.BytesIO()
    figure.savefig(image, format="png")
    return image.getvalue()


def _panel(axes: Axes, sweep: Sweep, others: list[Sweep], top: float) -> None:
    axes.set_xscale("log")
    axes.set_title(sweep.optimizer, parse_math=False)
    axes.grid(alpha=0.3)
    for place, other in enumerate(others):
        axes.plot(
            other.smooth_rates,
            other.smooth_losses,
            color=_OTHERS,
            linewidth=0.9,
            zorder=1,
            label=None if place else "other optimizers",
        )
    axes.plot(sweep.rates, sweep.losses, ".", color=_CURVE, alpha=0.35, markersize=3, zorder=2)
    axes.plot(sweep.smooth_rates, sweep.smooth_losses, color=_CURVE, linewidth=2, zorder=3)
    said = _ENDED[sweep.ended]
    if sweep.suggestion is None:
        said += "\n" + textwrap.fill(f"no suggestion: {sweep.why}", 44)
    else:
        _mark(axes, sweep)
    axes.text(
        0.03,
        0.04,
        said,
        transform=axes.transAxes,
        fontsize=8,
        va="bottom",
        parse_math=False,
        bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.5},
        zorder=6,
    )
    axes.set_ylim(0, top)
    if others or sweep.suggestion is not None:
        axes.legend(loc="upper left", fontsize=8, framealpha=0.9)


def _mark(axes: Axes, sweep: Sweep) -> None:
    found = sweep.suggestion
    if found is None:
        return
    axes.axvspan(
        found.begin,
        found.minimum,
        color=_MINIMUM,
        alpha=0.08,
        linewidth=0,
        zorder=0,
        label="the loss falls",
    )
    # With `scale_with_ranks` job.yaml says the rate of one rank.
    is_same = found.setting in (None, found.learning_rate)
    in_job = "" if is_same else f" (job.yaml: {found.setting:.2g})"
    axes.axvline(found.learning_rate, color=_SUGGESTED, linestyle="--", linewidth=1.2, zorder=4)
    axes.plot(
        [found.learning_rate],
        [_loss_at(sweep, found.learning_rate)],
        "o",
        color=_SUGGESTED,
        markersize=7,
        zorder=5,
        label=f"suggested {found.learning_rate:.2g}{in_job}",
    )
    axes.plot(
        [found.minimum],
        [_loss_at(sweep, found.minimum)],
        "v",
        color=_MINIMUM,
        markersize=7,
        zorder=5,
        label=f"lowest at {found.minimum:.2g}",
    )


def _loss_at(sweep: Sweep, rate: float) -> float:
    """Of the smoothed curve, at the point next to a rate."""
    pairs = zip(sweep.smooth_rates, sweep.smooth_losses, strict=True)
    return min(pairs, key=lambda pair: abs(math.log(pair[0] / rate)))[1]


def _top(found: LrFind) -> float:
    """Where the loss axis ends: an explosion would press everything else to the ground."""
    starts = [sweep.smooth_losses[0] for sweep in found.sweeps if sweep.smooth_losses]
    return 1.7 * max(starts, default=1.0) or 1.0
