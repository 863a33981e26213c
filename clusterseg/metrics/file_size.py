"""Predictions at the size of the files, from logits at the size that the network saw.

Ground truth is judged as it is in its file: a mask that is shrunk first loses what is thin. Logits
are resized, bilinearly, and the best class is taken afterwards, in strips of rows, so that memory
does not grow with the files (150 classes of 2000 x 3000 pixels would be 3.6 GB).
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from clusterseg.metrics.confusion import confusion_matrix

_STRIP = 1 << 24  # numbers in a strip: 64 MB


def confusion_at_file_size(
    logits: tf.Tensor, masks: tf.Tensor, sizes: tf.Tensor, classes: int, ignore: int | None
) -> tf.Tensor:
    """int64 [classes, classes]: the confusion matrix of all pictures together.

    `logits` float32 [n, height, width, classes]; `masks` int32 [n, H, W], of which `sizes` int32
    [n, 2] (height, width) from the upper left are each picture's own. Of a picture the matrix is
    the same whatever batch it is in.
    """

    def of_picture(number: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        mask = masks[number, : sizes[number, 0], : sizes[number, 1]]

        def of_strip(first: tf.Tensor, strip: tf.Tensor) -> tf.Tensor:
            found = tf.argmax(strip, axis=-1, output_type=tf.int32)
            true = mask[first : first + tf.shape(strip)[0]]
            return confusion_matrix(true, found, classes, ignore)

        return number + 1, total + over_strips(logits[number], sizes[number], of_strip, nothing)

    nothing = tf.zeros([classes, classes], tf.int64)
    count = tf.shape(logits)[0]
    return tf.while_loop(
        lambda number, total: number < count,
        of_picture,
        (tf.constant(0), nothing),
        parallel_iterations=1,
        maximum_iterations=count,
    )[1]


def over_strips(
    image: tf.Tensor,
    size: tf.Tensor,
    judge: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    nothing: tf.Tensor,
) -> tf.Tensor:
    """The sum, from `nothing` on, of judge(first row, float32 [rows, width, channels]) over the
    strips of `image` [h, w, channels] resized to `size`; in a graph."""
    rows = strip_rows(size, tf.shape(image)[2])

    def one(first: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        strip = resized_rows(image, size, first, tf.minimum(rows, size[0] - first))
        return first + rows, total + judge(first, strip)

    return tf.while_loop(
        lambda first, total: first < size[0],
        one,
        (tf.constant(0), nothing),
        parallel_iterations=1,
    )[1]


def strip_rows(size: tf.Tensor, channels: tf.Tensor) -> tf.Tensor:
    """How many rows of pictures of `size` make a strip: at least one."""
    return tf.maximum(1, _STRIP // tf.maximum(1, size[1] * channels))


def resized_rows(
    image: tf.Tensor, size: tf.Tensor, first: tf.Tensor, count: tf.Tensor
) -> tf.Tensor:
    """float32 [count, width, channels]: rows from `first` on of `image` [h, w, channels] resized to
    `size`, as `tf.image.resize` does it (bilinear, half-pixel centres, no antialiasing)."""
    image = tf.cast(image, tf.float32)
    old = tf.shape(image)[0]
    step = tf.cast(old, tf.float32) / tf.cast(size[0], tf.float32)
    place = (tf.cast(first + tf.range(count), tf.float32) + 0.5) * step - 0.5
    below = tf.floor(place)
    upper = tf.clip_by_value(tf.cast(below, tf.int32), 0, old - 1)
    lower = tf.clip_by_value(tf.cast(below, tf.int32) + 1, 0, old - 1)
    weight = (place - below)[:, tf.newaxis, tf.newaxis]
    above = tf.gather(image, upper)
    strip = above + (tf.gather(image, lower) - above) * weight
    return tf.image.resize(strip, tf.stack([count, size[1]]), method="bilinear")
