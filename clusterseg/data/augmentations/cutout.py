"""`cutout: f`: fills a square with the mean colour, at a random place; labels stay.

Its side is f of the picture's height; its middle is anywhere, so that it may stand over the border
(DeVries and Taylor, arXiv 1708.04552).
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from clusterseg.data.augment import Augmentation, Context, number
from clusterseg.data.colors import filled


def build(value: Any, context: Context) -> Augmentation:
    share = number("cutout", value, 0, 1)

    def change(
        image: tf.Tensor, labels: tf.Tensor, draws: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        size = tf.cast(tf.shape(labels), tf.float32)
        side = tf.fill([2], tf.round(share * size[0]))
        first = tf.floor(draws * size) - tf.floor(side / 2)
        color = tf.constant(context.fill, tf.float32)
        return filled(image, first, side, color), labels

    return Augmentation(change, count=2)
