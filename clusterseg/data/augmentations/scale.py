"""`scale: [min, max]`: resizes by a random factor, then crops or pads to the size at random.

The factor is uniform in [min, max] and relative to the size that the network sees, so that 1 is
the picture as validation shows it. Where the result is smaller it is put at a random place, with
the mean colour and no label around it.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from clusterseg.data.augment import Augmentation, Context, interval
from clusterseg.data.geometry import crop_or_pad


def build(value: Any, context: Context) -> Augmentation:
    low, high = interval("scale", value, 0.05, 20)
    fill, no_label = context.fill, context.no_label

    def change(
        image: tf.Tensor, labels: tf.Tensor, draws: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        factor = low + (high - low) * draws[0]
        scaled = tf.round(factor * tf.constant(context.size, tf.float32))
        scaled = tf.maximum(tf.cast(scaled, tf.int32), 1)
        return crop_or_pad(
            image, labels, context.size, draws[1:3], scaled=scaled, fill=fill, no_label=no_label
        )

    return Augmentation(change, count=3, resizes=True)
