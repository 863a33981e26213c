"""`brightness_factor: [min, max]`: multiplies all pixels by a number drawn from [min, max]."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from clusterseg.data.augment import Augmentation, Context, interval
from clusterseg.data.colors import blended


def build(value: Any, context: Context) -> Augmentation:
    low, high = interval("brightness_factor", value, 0, 10)

    def change(
        image: tf.Tensor, labels: tf.Tensor, draws: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        return blended(image, 0.0, low + (high - low) * draws[0]), labels

    return Augmentation(change, count=1)
