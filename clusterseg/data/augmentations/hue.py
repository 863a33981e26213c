"""`hue: d`: turns all hues by the same angle, up to d of the full circle either way."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from clusterseg.data.augment import Augmentation, Context, number


def build(value: Any, context: Context) -> Augmentation:
    most = number("hue", value, 0, 1)

    def change(
        image: tf.Tensor, labels: tf.Tensor, draws: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        turned = tf.image.adjust_hue(image, most * (2 * draws[0] - 1))
        return tf.clip_by_value(turned, 0.0, 255.0), labels

    return Augmentation(change, count=1)
