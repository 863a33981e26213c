"""`random_resized_crop: {scale: [min, max], ratio: [min, max]}`: a part, resized to the size.

The part's area is a fraction of the picture's, drawn from `scale`; width divided by height is drawn
from `ratio`, evenly in its logarithm. As torchvision's RandomResizedCrop: ten draws, of which the
first that fits into the picture is taken; else the largest part in the middle whose shape is within
`ratio`.
"""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from clusterseg.data import geometry
from clusterseg.data.augment import Augmentation, Context, interval, options

_TRIES = 10


def build(value: Any, context: Context) -> Augmentation:
    found = options("random_resized_crop", value, {"scale": (0.08, 1.0), "ratio": (3 / 4, 4 / 3)})
    least, most = interval("random_resized_crop: scale", found["scale"], 1e-4, 1)
    narrow, wide = interval("random_resized_crop: ratio", found["ratio"], 0.01, 100)

    def change(
        image: tf.Tensor, labels: tf.Tensor, draws: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        size = tf.cast(tf.shape(labels), tf.float32)
        area = size[0] * size[1] * (least + (most - least) * draws[:_TRIES])
        low, high = math.log(narrow), math.log(wide)
        ratio = tf.exp(low + (high - low) * draws[_TRIES : 2 * _TRIES])
        parts = tf.round(tf.sqrt(tf.stack([area / ratio, area * ratio], axis=1)))
        fits = tf.reduce_all((parts >= 1) & (parts <= size), axis=1)
        part = tf.where(tf.reduce_any(fits), parts[tf.argmax(fits)], _middle(size, narrow, wide))
        part = tf.cast(part, tf.int32)
        whole = tf.shape(labels)
        # In the middle, where no draw fitted.
        place = tf.where(tf.reduce_any(fits), draws[2 * _TRIES :], 0.5)
        rows, columns = (
            geometry.random_window(whole[side], part[side], place[side]) for side in (0, 1)
        )
        return geometry.resize(*geometry.crop(image, labels, rows, columns), context.size)

    return Augmentation(change, count=2 * _TRIES + 2, resizes=True)


def _middle(size: tf.Tensor, narrow: float, wide: float) -> tf.Tensor:
    """(height, width) of the largest part whose width / height is within the two."""
    height, width = size[0], size[1]
    inside = tf.stack([tf.minimum(height, width / narrow), tf.minimum(width, height * wide)])
    return tf.maximum(tf.round(inside), 1.0)
