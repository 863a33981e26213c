"""`flip_horizontal: p`: mirrors left and right with probability p."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from clusterseg.data.augment import Augmentation, Context, number


def build(value: Any, context: Context) -> Augmentation:
    return flip("flip_horizontal", value, axis=1)


def flip(name: str, value: Any, axis: int) -> Augmentation:
    """Mirrors along `axis` (0 rows, 1 columns) with probability `value`."""
    probability = number(name, value, 0, 1)

    def change(
        image: tf.Tensor, labels: tf.Tensor, draws: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        image, labels = tf.cond(
            draws[0] < probability,
            lambda: (tf.reverse(image, [axis]), tf.reverse(labels, [axis])),
            lambda: (image, labels),
        )
        return image, labels

    return Augmentation(change, count=1)
