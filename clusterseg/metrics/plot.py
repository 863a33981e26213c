"""A confusion matrix as a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np

from clusterseg.metrics.scores import Matrix

_MOST_NUMBERS = 40  # classes up to which shares are written into the cells
_CELL = 0.42  # inches
_DARK = 0.6  # share from which on white is easier to read than black


def shares(matrix: Matrix) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """float64 [classes, columns]: of the true pixels of each class, those predicted as each; NaN in
    the row of a class that has none."""
    true = matrix.sum(axis=1, keepdims=True)
    return np.where(true > 0, matrix / np.where(true > 0, true, 1), np.nan)


def draw_confusion(
    matrix: Matrix,
    ious: Mapping[str, float | None],
    mean: float | None,
    *,
    more: Sequence[str] = (),
) -> bytes:
    """The picture as PNG: rows are the truth, columns the prediction, in shares of the row.

    `ious` are the IoUs of the classes by their names, `mean` their mean; None where there is none:
    the scores that are told with the picture, whose definition need not be that of the matrix.
    `more` names columns after those of the classes, of what is predicted and is none of them.
    """
    # No pyplot: it would look for a display and keep every figure.
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    names, columns = list(ious), [*ious, *more]
    if matrix.shape != (len(names), len(columns)):
        raise ValueError(f"{len(names)} classes and {len(columns)} columns for {matrix.shape}")
    side = max(4.0, _CELL * min(len(columns), 60))
    figure = Figure(figsize=(side + 3.5, side + 2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    part = shares(matrix)
    image = axes.imshow(part, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(columns)), columns, rotation=90, parse_math=False)
    labelled = [f"{name} ({_number(iou)})" for name, iou in ious.items()]
    axes.set_yticks(range(len(names)), labelled, parse_math=False)
    if len(names) <= _MOST_NUMBERS:
        for row, column in zip(*np.nonzero(part >= 0.005), strict=True):
            share = float(part[row, column])
            colour = "white" if share > _DARK else "black"
            text = f"{100 * share:.0f}"
            axes.text(column, row, text, color=colour, ha="center", va="center", fontsize=7)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true (IoU)")
    title = f"percent of the true pixels; mean IoU {_number(mean, 4)}"
    axes.set_title(title)
    figure.colorbar(image, ax=axes, shrink=0.6)
    data = io.BytesIO()
    figure.savefig(data, format="png", metadata={"Title": title})
    return data.getvalue()


def _number(score: float | None, digits: int = 3) -> str:
    return "-" if score is None else f"{score:.{digits}f}"
