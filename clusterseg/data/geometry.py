"""Resizes, crops and pads pictures and labels alike, in a TensorFlow graph.

Pictures are float32 [height, width, 3], labels int32 [height, width]. Both are sampled at
half-pixel centres: pixel i of n shows what is at (i + 0.5) / n.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

Window = tuple[tf.Tensor, tf.Tensor]
"""Along one side: (first pixel shown, how many), of the resized picture."""


def resize_image(image: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Bilinear, to `size` (height, width)."""
    return tf.image.resize(image, size, method="bilinear")


def resize_labels(
    labels: tf.Tensor, size: tf.Tensor, rows: Window | None = None, columns: Window | None = None
) -> tf.Tensor:
    """The nearest pixel, to `size` (height, width), of which `rows` and `columns` are shown.

    Gathers what is shown only; `tf.image.resize(method="nearest")` takes five times as long and
    gives the same.
    """
    for axis, window in ((0, rows), (1, columns)):
        first, count = (0, size[axis]) if window is None else window
        old = tf.shape(labels)[axis]
        step = tf.cast(old, tf.float32) / tf.cast(size[axis], tf.float32)
        middle = tf.cast(first + tf.range(count), tf.float32) + 0.5
        nearest = tf.minimum(tf.cast(tf.floor(middle * step), tf.int32), old - 1)
        labels = tf.gather(labels, nearest, axis=axis)
    return labels


def pad_image(image: tf.Tensor, around: tf.Tensor, fill: Sequence[float]) -> tf.Tensor:
    """Puts `around` [[top, bottom], [left, right]] pixels of the colour `fill` around it."""
    above_fill = per_channel(image, offset=[-channel for channel in fill])
    return per_channel(tf.pad(above_fill, tf.concat([around, [[0, 0]]], 0)), offset=fill)


def per_channel(
    image: tf.Tensor, *, factor: Sequence[float] = (1, 1, 1), offset: Sequence[float]
) -> tf.Tensor:
    """image * factor + offset, of three numbers each.

    As rows of width * 3 numbers: TensorFlow broadcasts an inner dimension of 3 five times slower.
    """
    shape = tf.shape(image)
    rows = tf.reshape(image, [shape[0], shape[1] * 3])
    if tuple(factor) != (1, 1, 1):
        rows *= tf.tile(tf.constant(factor, tf.float32), [shape[1]])
    rows += tf.tile(tf.constant(offset, tf.float32), [shape[1]])
    return tf.ensure_shape(tf.reshape(rows, shape), image.shape)
