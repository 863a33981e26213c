"""`crop: [min, max]`: a part of both sides, drawn from [min, max], resized to the size.

Both sides by the same fraction, at a random place.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from clusterseg.data import geometry
from clusterseg.data.augment import Augmentation, Context, interval


def build(value: Any, context: Context) -> Augmentation:
    low, high = interval("crop", value, 0.01, 1)

    def change(
        image: tf.Tensor, labels: tf.Tensor, draws: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        size = tf.shape(labels)
        kept = (low + (high - low) * draws[0]) * tf.cast(size, tf.float32)
        kept = tf.clip_by_value(tf.cast(tf.round(kept), tf.int32), 1, size)
        rows, columns = (
            geometry.random_window(size[side], kept[side], draws[1 + side]) for side in (0, 1)
        )
        return geometry.resize(*geometry.crop(image, labels, rows, columns), context.size)

    return Augmentation(change, count=3, resizes=True)
