"""curves.csv: the history of a run as a table, a row an epoch. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from clusterseg.train.board.points import IOU, Entry

_FIRST = ("epoch", "step", "learning_rate", "loss", "val_loss", "val_accuracy", "val_mean_iou")
_LAST = ("images_per_second", "seconds", "skipped_steps", "loss_scale", "straggler_score")


def table(history: Sequence[Entry]) -> str:
    """The whole file; a figure that is not known is empty.

    Entries of checkpoints from before a figure was kept lack it, so the columns are those of all
    entries together.
    """
    classes = {name: None for entry in history for name in entry if name.startswith(IOU)}
    columns = [*_FIRST, *classes, *_LAST]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for entry in history:
        values = (entry.get(name) for name in columns)
        writer.writerow("" if value is None else value for value in values)
    return text.getvalue()
