"""`blur: s`: Gaussian blur with a sigma of up to s pixels.

Beyond the border there is nothing: the weights of what is inside add up to one.
"""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from clusterseg.data.augment import Augmentation, Context, number

_LEAST = 1e-3  # sigma of what is not blurred


def build(value: Any, context: Context) -> Augmentation:
    most = number("blur", value, 0, 50)
    reach = math.ceil(3 * most)

    def change(
        image: tf.Tensor, labels: tf.Tensor, draws: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        sigma = tf.maximum(most * draws[0], _LEAST)
        distance = tf.range(-reach, reach + 1, dtype=tf.float32)
        weights = tf.exp(-tf.square(distance / sigma) / 2)
        for axis in (0, 1):
            image = _along(image, weights, axis)
        return image, labels

    return Augmentation(change, count=1)


def _along(image: tf.Tensor, weights: tf.Tensor, axis: int) -> tf.Tensor:
    """The weighted mean of the pixels around each one, along `axis`."""
    shape = [1, -1, 1, 1] if axis else [-1, 1, 1, 1]
    kernel = tf.reshape(weights, shape)
    channels = tf.transpose(image, [2, 0, 1])[..., tf.newaxis]
    inside = tf.ones_like(channels[:1])
    total, weight = (tf.nn.conv2d(one, kernel, 1, "SAME") for one in (channels, inside))
    return tf.ensure_shape(tf.transpose((total / weight)[..., 0], [1, 2, 0]), image.shape)
