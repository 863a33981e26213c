"""Resizes, crops and pads pictures and labels alike, in a TensorFlow graph.

Pictures are float32 [height, width, 3], labels int32 [height, width]. Both are sampled at
half-pixel centres: pixel i of n shows what is at (i + 0.5) / n.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from clusterseg.data.normalisation import Normalisation

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


def resize(
    image: tf.Tensor, labels: tf.Tensor, size: tf.Tensor | tuple[int, int]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Both, to `size` (height, width)."""
    return resize_image(image, size), resize_labels(labels, size)


def crop(
    image: tf.Tensor, labels: tf.Tensor, rows: Window, columns: Window
) -> tuple[tf.Tensor, tf.Tensor]:
    """The window of both."""
    (top, height), (left, width) = rows, columns
    place = (slice(top, top + height), slice(left, left + width))
    return image[place], labels[place]


def random_window(length: tf.Tensor, wanted: tf.Tensor, draw: tf.Tensor) -> Window:
    """(first, count): `wanted` pixels of a side of `length`, at random; all where it has fewer."""
    _, first = placed(length, wanted, draw)
    return first, tf.minimum(length, wanted)


def placed(
    length: tf.Tensor, wanted: tf.Tensor | int, draw: tf.Tensor | None
) -> tuple[tf.Tensor, tf.Tensor]:
    """(pixels to put before, pixels to cut off before) to come from `length` to `wanted`: one of
    them is 0. `draw` in [0, 1) chooses the place; None: the middle, rounded down."""
    free = wanted - length
    if draw is None:
        offset = tf.abs(free) // 2
    else:
        slots = tf.cast(tf.abs(free) + 1, tf.float32)
        # A draw just below 1 times many slots can round up to one too many.
        offset = tf.minimum(tf.cast(draw * slots, tf.int32), tf.abs(free))
    return tf.where(free > 0, offset, 0), tf.where(free > 0, 0, offset)


def crop_or_pad(
    image: tf.Tensor,
    labels: tf.Tensor,
    size: tuple[int, int],
    draws: tf.Tensor | None,
    *,
    scaled: tf.Tensor | None = None,
    fill: Sequence[float],
    no_label: int,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Both resized to `scaled` (height, width; None: left as they are), then cut down or filled up
    to `size`: each side at the place that one of the two `draws` says, or in the middle."""
    height, width = size
    if scaled is None:
        scaled = tf.shape(labels)
    else:
        image = resize_image(image, scaled)
    down, right = (None, None) if draws is None else (draws[0], draws[1])
    top, cut_top = placed(scaled[0], height, down)
    left, cut_left = placed(scaled[1], width, right)
    shown = tf.minimum(scaled, [height, width])
    labels = resize_labels(labels, scaled, (cut_top, shown[0]), (cut_left, shown[1]))
    image = image[cut_top : cut_top + height, cut_left : cut_left + width]
    around = tf.stack([[top, height - shown[0] - top], [left, width - shown[1] - left]])
    image, labels = tf.cond(
        tf.reduce_any(around > 0),
        lambda: pad(image, labels, around, fill=fill, no_label=no_label),
        lambda: (image, labels),
    )
    return tf.ensure_shape(image, (height, width, 3)), tf.ensure_shape(labels, (height, width))


def pad(
    image: tf.Tensor,
    labels: tf.Tensor,
    around: tf.Tensor,
    *,
    fill: Sequence[float],
    no_label: int,
) -> tuple[tf.Tensor, tf.Tensor]:
    """`around` [[top, bottom], [left, right]] pixels of `fill` and without a label."""
    return pad_image(image, around, fill), tf.pad(labels, around, constant_values=no_label)


def pad_image(image: tf.Tensor, around: tf.Tensor, fill: Sequence[float]) -> tf.Tensor:
    """Puts `around` [[top, bottom], [left, right]] pixels of the colour `fill` around it."""
    above_fill = per_channel(image, offset=[-channel for channel in fill])
    return per_channel(tf.pad(above_fill, tf.concat([around, [[0, 0]]], 0)), offset=fill)


def normalise(image: tf.Tensor, normalisation: Normalisation) -> tf.Tensor:
    """RGB in 0 to 255 as the network sees it."""
    factors, offsets = normalisation.linear()
    image = per_channel(image, factor=factors, offset=offsets)
    return image[..., ::-1] if normalisation.order == "bgr" else image


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
