"""What a network says of one picture, at the picture's own size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from clusterseg.errors import ClustersegError, lasting
from clusterseg.metrics.file_size import resized_rows
from clusterseg.metrics.uncertainty import Running
from clusterseg.models.refine import refine
from clusterseg.train.inference.how import How, check, scaled, tiles
from clusterseg.train.inference.network import Network, Size

_STRIP = 1 << 24  # numbers in a strip of rows: 64 MB


@dataclass(frozen=True)
class Prediction:
    """`classes` int32 [height, width]; `confidence` float32 [height, width], the probability of
    the best class (where a border was mended, of the one that was there); `samples`, where several
    were drawn."""

    classes: NDArray[np.int32]
    confidence: NDArray[np.float32]
    samples: Running | None = None


@dataclass(frozen=True)
class _Map:
    """float32 [h, w, classes], of any size: logits, or probabilities."""

    scores: tf.Tensor
    are_probabilities: bool = False


class Predictor:
    """Predicts pictures as `how` says."""

    def __init__(self, network: Network, how: How) -> None:
        """Raises ClustersegError for what the network can't do."""
        with lasting():
            check(how, network.divisor)
            if how.samples and not network.can_sample:
                raise ClustersegError(
                    "the network drops nothing: all samples would be equal",
                    code="no-dropout",
                    help="--samples goes with a network that has dropout, such as bayes_segnet",
                )
        self._network = network
        self._how = how

    def predict(self, image: NDArray[np.uint8], name: str) -> Prediction:
        """Of uint8 [height, width, 3], RGB. What is dropped in samples follows from `name`."""
        found = self._predicted(image, name)
        if not self._how.refine:
            return found
        mended = refine(found.classes, found.confidence, self._how.refine)
        return replace(found, classes=mended)

    def _predicted(self, image: NDArray[np.uint8], name: str) -> Prediction:
        size = image.shape[0], image.shape[1]
        if self._how.samples:
            return self._sampled(image, name, size)
        maps = list(self._maps(image, name, None))
        classes, confidence = np.empty(size, np.int32), np.empty(size, np.float32)
        for first, best, sure in _judged(maps, size):
            classes[first : first + len(best)] = best
            confidence[first : first + len(best)] = sure
        return Prediction(classes, confidence)

    def _sampled(self, image: NDArray[np.uint8], name: str, size: Size) -> Prediction:
        running = Running()
        for sample in range(self._how.samples):
            maps = list(self._maps(image, name, sample))
            running.add(np.concatenate([part.numpy() for _, part in _strips(maps, size)]))
        mean = running.mean
        return Prediction(mean.argmax(axis=-1).astype(np.int32), mean.max(axis=-1), running)

    def _maps(self, image: NDArray[np.uint8], name: str, sample: int | None) -> Iterator[_Map]:
        for scale, mirrored in self._how.passes():
            tile = self._how.tile
            seen, (height, width) = self._seen(image, scale)
            seen = seen[:, ::-1] if mirrored else seen
            if tile is None:
                scores = self._logits(seen, sample, name)
            else:
                scores = self._tiled(seen, self._scaled_tile(tile, scale), sample, name)
            scores = scores[:, ::-1] if mirrored else scores
            yield _Map(scores[:height, :width], are_probabilities=tile is not None)

    def _seen(self, image: NDArray[np.uint8], scale: float) -> tuple[tf.Tensor, Size]:
        """The prepared picture, and how much of it is no margin."""
        tile, own = self._how.tile, self._network.classes.size
        if tile is None:
            size = scaled(own, scale, self._network.divisor)
            return self._network.prepared(tf.constant(image), size), size
        size = scaled((image.shape[0], image.shape[1]), scale, 1)
        least = self._scaled_tile(tile, scale)
        seen = self._network.prepared(tf.constant(image), size)
        # What is beyond a small picture has the mean colour, which is 0.
        margins = [[0, max(0, least[side] - size[side])] for side in (0, 1)]
        return tf.pad(seen, [*margins, [0, 0]]), size

    def _scaled_tile(self, tile: Size, scale: float) -> Size:
        return scaled(tile, scale, self._network.divisor)

    def _tiled(self, seen: tf.Tensor, tile: Size, sample: int | None, name: str) -> tf.Tensor:
        """float32 [h, w, classes]: probabilities, averaged where tiles overlap."""
        height, width = int(seen.shape[0]), int(seen.shape[1])
        total = np.zeros((height, width, len(self._network.classes)), np.float32)
        count = np.zeros((height, width, 1), np.float32)
        for top, left in tiles((height, width), tile, self._how.overlap):
            rows, columns = slice(top, top + tile[0]), slice(left, left + tile[1])
            logits = self._logits(seen[rows, columns], sample, f"{name}/{top}-{left}")
            total[rows, columns] += tf.nn.softmax(logits).numpy()
            count[rows, columns] += 1
        return tf.constant(total / count)

    def _logits(self, image: tf.Tensor, sample: int | None, name: str) -> tf.Tensor:
        return self._network.logits(image, sample=sample, seed=self._how.seed, picture=name)


def _judged(
    maps: list[_Map], size: Size
) -> Iterator[tuple[int, NDArray[np.int32], NDArray[np.float32]]]:
    """(first row, best classes, their probabilities) a strip of rows."""
    if len(maps) == 1 and not maps[0].are_probabilities:
        # The best of the logits, as validation has it: a softmax may round two to one.
        for first, rows in _rows(size, maps[0].scores):
            best, sure = _best_of_logits(maps[0].scores, size, first, rows)
            yield first, best.numpy(), sure.numpy()
        return
    for first, part in _strips(maps, size):
        best = tf.argmax(part, axis=-1, output_type=tf.int32)
        yield first, best.numpy(), tf.reduce_max(part, axis=-1).numpy()


def _strips(maps: list[_Map], size: Size) -> Iterator[tuple[int, tf.Tensor]]:
    """(first row, float32 [rows, width, classes]): the mean of the probabilities."""
    for first, rows in _rows(size, maps[0].scores):
        total = sum(
            (_probabilities if one.are_probabilities else _softmax)(one.scores, size, first, rows)
            for one in maps
        )
        yield first, total / len(maps)


def _rows(size: Size, scores: tf.Tensor) -> Iterator[tuple[int, int]]:
    rows = max(1, _STRIP // (size[1] * int(scores.shape[2])))
    for first in range(0, size[0], rows):
        yield first, min(rows, size[0] - first)


_SIGNATURE = [
    tf.TensorSpec([None, None, None], tf.float32),
    tf.TensorSpec([2], tf.int32),
    tf.TensorSpec([], tf.int32),
    tf.TensorSpec([], tf.int32),
]


@tf.function(input_signature=_SIGNATURE, autograph=False)  # type: ignore[untyped-decorator]
def _probabilities(
    scores: tf.Tensor, size: tf.Tensor, first: tf.Tensor, count: tf.Tensor
) -> tf.Tensor:
    return resized_rows(scores, size, first, count)


@tf.function(input_signature=_SIGNATURE, autograph=False)  # type: ignore[untyped-decorator]
def _softmax(scores: tf.Tensor, size: tf.Tensor, first: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    return tf.nn.softmax(resized_rows(scores, size, first, count))


@tf.function(input_signature=_SIGNATURE, autograph=False)  # type: ignore[untyped-decorator]
def _best_of_logits(
    scores: tf.Tensor, size: tf.Tensor, first: tf.Tensor, count: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    strip = resized_rows(scores, size, first, count)
    best = tf.argmax(strip, axis=-1, output_type=tf.int32)
    return best, tf.reduce_max(tf.nn.softmax(strip), axis=-1)
