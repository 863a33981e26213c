"""`scale: [min, max]`: resizes by a random factor, then crops or pads to the size at random.

The factor is uniform in [min, max] and relative to the size that the network sees, so that 1 is
the picture as validation shows it. Where the result is smaller it is put at a random place, with
the mean colour and no label around it.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from clusterseg.data.augment import Augmentation, Context, bad_value, number
from clusterseg.data.geometry import pad_image, resize_image, resize_labels


def build(value: Any, context: Context) -> Augmentation:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise bad_value(f"scale must be [min, max], not {value!r}")
    low, high = (number("scale", v, 0.05, 20) for v in value)
    if low > high:
        raise bad_value(f"scale must be [min, max] with min at most max, not {value!r}")
    height, width = context.size
    fill, no_label = context.fill, context.no_label

    def change(
        image: tf.Tensor, labels: tf.Tensor, draws: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        factor = low + (high - low) * draws[0]
        scaled = tf.round(factor * tf.constant([height, width], tf.float32))
        scaled = tf.maximum(tf.cast(scaled, tf.int32), 1)
        top, cut_top = _place(scaled[0], height, draws[1])
        left, cut_left = _place(scaled[1], width, draws[2])
        shown = tf.minimum(scaled, [height, width])
        labels = resize_labels(labels, scaled, (cut_top, shown[0]), (cut_left, shown[1]))
        image = resize_image(image, scaled)
        image = image[cut_top : cut_top + height, cut_left : cut_left + width]
        around = tf.stack([[top, height - shown[0] - top], [left, width - shown[1] - left]])
        image, labels = tf.cond(
            tf.reduce_any(around > 0),
            lambda: (
                pad_image(image, around, fill),
                tf.pad(labels, around, constant_values=no_label),
            ),
            lambda: (image, labels),
        )
        return tf.ensure_shape(image, (height, width, 3)), tf.ensure_shape(labels, (height, width))

    return Augmentation(change, count=3, resizes=True)


def _place(length: tf.Tensor, wanted: int, draw: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """(pixels to put before, pixels to cut off before); one of them is 0."""
    free = wanted - length
    slots = tf.cast(tf.abs(free) + 1, tf.float32)
    # A draw just below 1 times many slots can round up to one too many.
    offset = tf.minimum(tf.cast(draw * slots, tf.int32), tf.abs(free))
    return tf.where(free > 0, offset, 0), tf.where(free > 0, 0, offset)
