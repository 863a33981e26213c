"""A confusion matrix as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from clusterseg.metrics.scores import Matrix, class_iou, mean_iou

_MOST_NUMBERS = 40  # classes up to which shares are written into the cells
_CELL = 0.42  # inches
_DARK = 0.6  # share from which on white is easier to read than black


def shares(matrix: Matrix) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """float64 [classes, classes]: of the true pixels of each class, those predicted as each; NaN in
    the row of a class that has none."""
    true = matrix.sum(axis=1, keepdims=True)
    return np.where(true > 0, matrix / np.where(true > 0, true, 1), np.nan)


def draw_confusion(matrix: Matrix, names: Sequence[str]) -> bytes:
    """The picture as PNG: rows are the truth, columns the prediction, in shares of the row.

    `names` are those of the classes. A class that is neither there nor predicted has no IoU.
    """
    # No pyplot: it would look for a display and keep every figure.
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    if len(names) != len(matrix):
        raise ValueError(f"{len(names)} names for {len(matrix)} classes")
    side = max(4.0, _CELL * min(len(names), 60))
    figure = Figure(figsize=(side + 3.5, side + 2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    part = shares(matrix)
    image = axes.imshow(part, cmap="Blues", vmin=0, vmax=1)
    places = range(len(names))
    axes.set_xticks(places, names, rotation=90, parse_math=False)
    labelled = [_with_iou(name, iou) for name, iou in zip(names, class_iou(matrix), strict=True)]
    axes.set_yticks(places, labelled, parse_math=False)
    if len(names) <= _MOST_NUMBERS:
        for row, column in zip(*np.nonzero(part >= 0.005), strict=True):
            share = float(part[row, column])
            colour = "white" if share > _DARK else "black"
            text = f"{100 * share:.0f}"
            axes.text(column, row, text, color=colour, ha="center", va="center", fontsize=7)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true (IoU)")
    axes.set_title(f"percent of the true pixels; mean IoU {mean_iou(matrix):.4f}")
    figure.colorbar(image, ax=axes, shrink=0.6)
    data = io.BytesIO()
    figure.savefig(data, format="png")
    return data.getvalue()


def _with_iou(name: str, iou: float) -> str:
    return f"{name} (-)" if np.isnan(iou) else f"{name} ({iou:.3f})"
