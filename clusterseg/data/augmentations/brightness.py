"""`brightness: d`: adds the same amount to all pixels, up to d of full brightness either way."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from clusterseg.data.augment import Augmentation, Context, number


def build(value: Any, context: Context) -> Augmentation:
    most = 255 * number("brightness", value, 0, 1)

    def change(
        image: tf.Tensor, labels: tf.Tensor, draws: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        image += most * (2 * draws[0] - 1)
        return tf.minimum(tf.maximum(image, 0.0), 255.0), labels

    return Augmentation(change, count=1)
