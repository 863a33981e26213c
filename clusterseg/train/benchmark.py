"""The Cityscapes benchmark's own scores of what a network finds on data of Cityscapes."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from clusterseg.data.cityscapes import TRAIN_TO_ID
from clusterseg.data.sources import mask_data
from clusterseg.metrics.cityscapes import Tally, judge, tally
from clusterseg.metrics.files import read_values, values_of
from clusterseg.metrics.runs import Map

if TYPE_CHECKING:
    from clusterseg.data import Dataset, Part

# Of classes, or of what masks of train ids hold. What else a network of more classes may find is
# void, which is right nowhere; 255, what is ignored, is so too, and as truth counts nowhere.
_IDS = np.array([*TRAIN_TO_ID, *[0] * (256 - len(TRAIN_TO_ID))], np.uint8)


def counting_of(dataset: Dataset, part: Part) -> Counting | None:
    """None for data that are not of Cityscapes. Shards are if their classes stand for its ids;
    they hold no instances, so there is no nIoU of them."""
    if dataset.name == "cityscapes" or _are_cityscapes(dataset):
        return Counting(part)
    return None


def benchmark_scores(total: Tally | None) -> dict[str, Any] | None:
    """As plain values for JSON."""
    return None if total is None else judge(total).record()


class Counting:
    """Counts predictions as the benchmark does, in the order of the samples."""

    def __init__(self, part: Part) -> None:
        self._tallies: list[Tally] = []
        self._part = part
        self._next = 0

    @property
    def total(self) -> Tally:
        """What all that was added comes to."""
        return Tally.total(self._tallies)

    def batch(self, predictions: Any, sizes: Any, valid: Any) -> None:
        """int32 [batch, H, W], int32 [batch, 2] and bool [batch], of the next samples."""
        for found, (height, width), is_valid in zip(
            predictions.numpy(), sizes.numpy(), valid.numpy(), strict=True
        ):
            if is_valid:
                self.add(self._next, found[:height, :width])
            self._next += 1

    def add(self, number: int, classes: Any) -> None:
        """The prediction of sample `number`: classes [height, width]."""
        sample = self._part.samples[number]
        instances = None if sample.instances is None else read_values(sample.instances)
        self._tallies.append(tally(self._truth(number), _IDS[classes], instances))

    def _truth(self, number: int) -> Map:
        """Label ids [height, width], from masks of those or of train ids."""
        sample = self._part.samples[number]
        if sample.record is None:
            values = read_values(sample.mask)
            if not sample.mask.name.endswith("_labelTrainIds.png"):
                return values
        else:
            values = values_of(io.BytesIO(mask_data(sample)), sample.mask)
        return _IDS[np.minimum(values, len(_IDS) - 1)]  # where what is ignored has 16 bits


def _are_cityscapes(shards: Dataset) -> bool:
    ids = shards.label_ids or ()
    return shards.name == "tfrecord" and ids[: len(TRAIN_TO_ID)] == TRAIN_TO_ID
