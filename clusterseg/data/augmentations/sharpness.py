"""`sharpness: d`: sharpens or softens.

Moves pixels away from the picture's softened version or towards it, by a factor from 1 - d to 1 + d
(Pillow's ImageEnhance.Sharpness, whose filter of 3x3 pixels gives the middle five times the weight
of each other one and leaves the border as it is).
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from clusterseg.data.augment import Augmentation, Context, number
from clusterseg.data.colors import blended


def build(value: Any, context: Context) -> Augmentation:
    most = number("sharpness", value, 0, 1)

    def change(
        image: tf.Tensor, labels: tf.Tensor, draws: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        soft = tf.cond(
            tf.reduce_min(tf.shape(labels)) >= 3, lambda: _softened(image), lambda: image
        )
        return blended(image, soft, 1 + most * (2 * draws[0] - 1)), labels

    return Augmentation(change, count=1)


def _softened(image: tf.Tensor) -> tf.Tensor:
    rows = image[:-2] + image[1:-1] + image[2:]
    around = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    inner = (around + 4 * image[1:-1, 1:-1]) / 13
    middle = tf.concat([image[1:-1, :1], inner, image[1:-1, -1:]], axis=1)
    return tf.concat([image[:1], middle, image[-1:]], axis=0)
