"""What is a point of which curve: pure functions of events and history entries.

A tag is called what the same figure is called in the events and in curves.csv.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from clusterseg.runs.records import Claim, Steps

IOU = "iou/"
"""Prefix of a class's IoU, in the history, in curves.csv and as a tag."""

EPOCH = "epoch"
"""Tag that every completed epoch has a point of, validated or not."""

WINDOW = "learning_rate"
"""Tag that every window of steps has a point of."""

_OF_EPOCHS = ("val_loss", "val_accuracy", "val_mean_iou", "straggler_score")

Points = dict[str, float]
Entry = Mapping[str, float | int | None]


def window_points(event: Steps) -> Points:
    """Of a window of steps; `images_per_second` is that of all ranks."""
    known = event.all_images is not None and event.seconds > 0  # not in logs of before
    points = {
        WINDOW: event.learning_rate,
        "loss": event.loss,
        "images_per_second": (event.all_images or 0) / event.seconds if known else None,
        "skipped_steps": event.skipped_steps,
        "loss_scale": event.loss_scale,
        "gradient_norm": event.gradient_norm,
    }
    return {tag: value for tag, value in points.items() if value is not None}


def epoch_points(entry: Entry) -> Points:
    """Of an entry of the history."""
    tags = [EPOCH, *_OF_EPOCHS, *(name for name in entry if name.startswith(IOU))]
    found = ((tag, entry.get(tag)) for tag in tags)
    return {tag: float(value) for tag, value in found if value is not None}


def class_labels(names: Sequence[str], classes: int) -> list[str]:
    """A name for each of the model's `classes`, no two alike; the data set may name fewer."""
    labels: list[str] = []
    for number in range(classes):
        name = names[number] if number < len(names) else f"class {number}"
        labels.append(name if name not in labels else f"{name} ({number})")
    return labels


def iou_by_class(names: Sequence[str], iou: Sequence[float]) -> dict[str, float]:
    """`iou/<class>` -> IoU, in the order of the classes; six decimals, since every checkpoint
    holds those of all epochs."""
    labels = class_labels(names, len(iou))
    return {f"{IOU}{label}": round(value, 6) for label, value in zip(labels, iou, strict=True)}


def pictures_due(epoch: int, epochs: int, most: int = 50) -> bool:
    """Whether the validation after `epoch` (from 1) is shown in pictures.

    The first and the last are, and as many in between, evenly, as make about `most` in all: they
    are what fills the disk.
    """
    return epoch == 1 or epoch >= epochs or epoch % -(-epochs // most) == 0


def limits(claims: Iterable[Claim], own: Claim) -> dict[int, int]:
    """Attempt -> the last step of it that counts, for all attempts before `own`.

    None counts beyond the step that any later one began at: what it did from there on was done
    anew, and what it goes on doing after it lost the run is nobody's.
    """
    begun = {claim.attempt: claim.resume_step for claim in claims}
    limit = own.resume_step
    found = {}
    for attempt in range(own.attempt - 1, -1, -1):
        found[attempt] = limit
        limit = min(limit, begun.get(attempt, limit))
    return found
