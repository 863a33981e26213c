"""Max pooling that remembers where the maxima were, and the way back (SegNet).

The places are int64 numbers all the way. As float32, which holds whole numbers up to 2^24 only, a
quarter of those of a map of 512x1024x64 would be others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf
from keras import layers

Shape = tuple[int | None, ...]


class _ByWindow(layers.Layer):  # type: ignore[misc]
    """`by_window`: places are numbers 0 to 3 within a window of 2x2, row by row, instead of ones
    within the whole batch. Both layers of a pair must go by the same ones."""

    by_window = False


@keras.saving.register_keras_serializable("clusterseg")
class MaxPoolWithIndices(_ByWindow):
    """2x2 max pooling with stride 2: [n, h, w, c] to the pair of maxima and their places.

    Both are [n, ceil(h / 2), ceil(w / 2), c]; the places, int64, count all elements of the batch.
    Of equal elements the first one of its window counts. An odd side is padded at its end.
    """

    def call(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        if self.by_window:
            return _pool_windows(x)
        return tuple(
            tf.nn.max_pool_with_argmax(
                x, 2, 2, "SAME", output_dtype=tf.int64, include_batch_in_index=True
            )
        )

    def compute_output_spec(self, x: Any) -> tuple[Any, Any]:
        shape = (x.shape[0], _half(x.shape[1]), _half(x.shape[2]), x.shape[3])
        return (
            keras.KerasTensor(shape, dtype=self.compute_dtype),
            keras.KerasTensor(shape, dtype="int64"),
        )


@keras.saving.register_keras_serializable("clusterseg")
class MaxUnpool(_ByWindow):
    """The pair of maxima and their places to [n, *size, c]: each at its place, and 0 elsewhere.

    `size` (height, width) is that of the map that was pooled. The maxima may be other numbers by
    now, of the same shape.
    """

    def __init__(self, size: tuple[int, int], **keywords: Any) -> None:
        super().__init__(**keywords)
        self.size = (int(size[0]), int(size[1]))

    def call(self, pair: Sequence[tf.Tensor]) -> tf.Tensor:
        values, places = pair
        if self.by_window:
            return _unpool_windows(values, places, self.size)
        channels = values.shape[-1]
        pictures = tf.shape(values, out_type=tf.int64)[0]
        count = pictures * (self.size[0] * self.size[1] * channels)
        flat = tf.scatter_nd(
            tf.reshape(places, [-1, 1]), tf.reshape(values, [-1]), tf.reshape(count, [1])
        )
        return tf.reshape(flat, [-1, *self.size, channels])

    def compute_output_spec(self, pair: Sequence[Any]) -> Any:
        values, _ = pair
        shape = (values.shape[0], *self.size, values.shape[3])
        return keras.KerasTensor(shape, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "size": self.size}


@contextmanager
def by_window(model: keras.Model) -> Iterator[None]:
    """Graphs of `model` that are made inside count places within windows.

    The results are the same bit by bit. For formats that have no pooling with places, such as
    TensorFlow Lite's: it needs comparisons and reshapes alone.
    """
    pairs = [layer for layer in model._flatten_layers() if isinstance(layer, _ByWindow)]
    before = [layer.by_window for layer in pairs]
    for layer in pairs:
        layer.by_window = True
    try:
        yield
    finally:
        for layer, value in zip(pairs, before, strict=True):
            layer.by_window = value


def _pool_windows(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    height, width = x.shape[1], x.shape[2]
    pad = [[0, 0], [0, height % 2], [0, width % 2], [0, 0]]
    x = tf.pad(x, pad, constant_values=float("-inf"))
    best, place = x[:, 0::2, 0::2], None
    for number, (row, column) in enumerate([(0, 1), (1, 0), (1, 1)], start=1):
        other = x[:, row::2, column::2]
        larger = other > best
        before = tf.zeros_like(best, tf.int64) if place is None else place
        place = tf.where(larger, tf.constant(number, tf.int64), before)
        best = tf.where(larger, other, best)
    return best, place


def _unpool_windows(values: tf.Tensor, places: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    nothing = tf.zeros_like(values)
    parts = [tf.where(tf.equal(places, number), values, nothing) for number in range(4)]
    height, width, channels = values.shape[1:]
    rows = [tf.stack(parts[2 * row : 2 * row + 2], axis=3) for row in range(2)]
    # [n, h, 2, w, 2, c]: a row of windows is two rows of the map.
    map_ = tf.reshape(tf.stack(rows, axis=2), [-1, 2 * height, 2 * width, channels])
    return map_[:, : size[0], : size[1]]


def _half(side: int) -> int:
    return -(-side // 2)
