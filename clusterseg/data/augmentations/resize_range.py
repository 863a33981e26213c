"""`resize_range: [shorter, longer]`: resizes by the file's shape, then crops or pads to the size.

The shorter side becomes `shorter` pixels, or less where the longer one would be more than `longer`
(`min_resize_value` and `max_resize_value` of research/deeplab). The shape stays that of the file.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from clusterseg.data.augment import Augmentation, Context, bad_value, side_pair
from clusterseg.data.geometry import crop_or_pad


def build(value: Any, context: Context) -> Augmentation:
    shorter, longer = side_pair("resize_range", value)
    if shorter > longer:
        raise bad_value(f"resize_range must be [shorter, longer] side, not {value!r}")
    fill, no_label = context.fill, context.no_label

    def change(
        image: tf.Tensor, labels: tf.Tensor, draws: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        size = tf.cast(tf.shape(labels), tf.float32)
        factor = tf.minimum(shorter / tf.reduce_min(size), longer / tf.reduce_max(size))
        scaled = tf.maximum(tf.cast(tf.round(factor * size), tf.int32), 1)
        return crop_or_pad(
            image, labels, context.size, draws, scaled=scaled, fill=fill, no_label=no_label
        )

    return Augmentation(change, count=2, resizes=True)
