"""Validation over all ranks: each takes its share by position, the sums are added up."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from clusterseg.metrics.scores import class_iou, mean_iou, pixel_accuracy
from clusterseg.train.communicator import Communicator
from clusterseg.train.step import EvaluationStep


@dataclass(frozen=True)
class Validation:
    """Over the labelled pixels of all samples; NaN where there is none."""

    loss: float
    accuracy: float
    mean_iou: float
    iou: tuple[float, ...]


def validate(
    batches: Iterable[Any],
    step: EvaluationStep,
    communicator: Communicator,
    *,
    classes: int,
    stop_agreed: Callable[[], bool],
    look: Callable[[Any, Any, Any, Any], None] | None = None,
) -> Validation | None:
    """None if the ranks agreed to stop before its end. All ranks get the same numbers.

    `look` sees images, labels, predictions and validity of each batch of this rank.
    Scores come from the sum of all ranks' confusion matrices, never from the mean of scores.
    """
    matrix = np.zeros((classes, classes), np.int64)
    sums = np.zeros(2, np.float64)
    for images, labels, valid in batches:
        if stop_agreed():
            return None
        counted, loss_sum, weight_sum, predictions = step(images, labels)
        if look:
            look(images, labels, predictions, valid)
        matrix += counted.numpy()
        sums += (float(loss_sum), float(weight_sum))
    matrix = communicator.sum(matrix)
    loss_sum, weight_sum = (float(one) for one in communicator.sum(sums))
    return Validation(
        loss=loss_sum / weight_sum if weight_sum else float("nan"),
        accuracy=pixel_accuracy(matrix),
        mean_iou=mean_iou(matrix),
        iou=tuple(float(one) for one in class_iou(matrix)),
    )
