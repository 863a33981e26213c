"""Validation over all ranks: each takes its share by position, the sums are added up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from clusterseg.metrics.scores import class_iou, mean_iou, pixel_accuracy
from clusterseg.train.communicator import Communicator
from clusterseg.train.feeder import Feeder
from clusterseg.train.step import EvaluationStep
from clusterseg.train.waiting import Cadence


@dataclass(frozen=True)
class Validation:
    """Over the labelled pixels of all samples; NaN where there is none.

    The loss is at the size of the network, all other scores are at that of the files. `matrix` is
    the confusion matrix, int64 [classes, classes].
    """

    loss: float
    accuracy: float
    mean_iou: float
    iou: tuple[float, ...]
    matrix: NDArray[np.int64] = field(repr=False, compare=False)


class Agreement(Protocol):
    """Asks all ranks: whether one of them has to stop, and the largest of each of the `wishes`."""

    def __call__(self, *wishes: int) -> tuple[bool, list[int]]: ...


def validate(
    batches: Feeder[Any],
    step: EvaluationStep,
    communicator: Communicator,
    *,
    classes: int,
    agree: Agreement,
    leave: Callable[[float], bool],
    look: Callable[[Any, Any, Any, Any], None] | None = None,
    judge: Callable[[Any, Any, Any], None] | None = None,
    alive: Callable[[], None] | None = None,
) -> Validation | None:
    """None if the ranks agreed to stop before its end. All ranks get the same numbers.

    They agree about twice a second, and before they add up. A rank that has no data for long
    (`leave`) comes to the agreement that the others wait in, or will come to next; if nobody has to
    stop that one does not count.

    `alive` is called after each batch: of a validation that a resumed attempt begins with, nobody
    else knows that it is one. `look` sees images, labels, predictions and validity of each batch
    of this rank. `judge` gets predictions int32 [batch, H, W] at the size of the files, of which
    each has its own in `sizes` int32 [batch, 2], and which of them are valid.
    Scores come from the sum of all ranks' confusion matrices, never from the mean of scores.
    """
    matrix = np.zeros((classes, classes), np.int64)
    sums = np.zeros(2, np.float64)
    number, cadence = 0, Cadence()
    while batches.left:
        if number == cadence.place and not _agreed(agree, cadence):
            return None
        batch = batches.current(leave)
        if batch is None:
            if agree(_WAITS, 0)[0]:
                return None
            continue
        images, labels, valid, masks, sizes = batch
        counted, loss_sum, weight_sum, predictions, whole = step(images, labels, masks, sizes)
        if look:
            look(images, labels, predictions, valid)
        if judge:
            judge(whole, sizes, valid)
        matrix += counted.numpy()
        sums += (float(loss_sum), float(weight_sum))
        batches.done()
        number += 1
        if alive:
            alive()
    if not _all_are_done(agree):
        return None
    matrix = communicator.sum(matrix)
    loss_sum, weight_sum = (float(one) for one in communicator.sum(sums))
    return Validation(
        loss=loss_sum / weight_sum if weight_sum else float("nan"),
        accuracy=pixel_accuracy(matrix),
        mean_iou=mean_iou(matrix),
        iou=tuple(float(one) for one in class_iou(matrix)),
        matrix=matrix,
    )


_WAITS = 1


def _agreed(agree: Agreement, cadence: Cadence) -> bool:
    """False if the ranks stop; else when they agree next."""
    own = cadence.proposal()
    while True:
        stop, (waits, largest) = agree(0, -own)
        if stop:
            return False
        if waits != _WAITS:
            cadence.agreed(-largest)
            return True


def _all_are_done(agree: Agreement) -> bool:
    """False if the ranks stop, which they do for one that has no data. Else what is computed is
    not thrown away: the next step can stop."""
    while True:
        stop, (waits, _) = agree(0, 0)
        if waits != _WAITS or stop:
            return waits != _WAITS
