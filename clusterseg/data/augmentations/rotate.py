"""`rotate: a`: turns about the middle, by up to a degrees either way.

Picture and labels by one transform: bilinear and by the nearest pixel. What turns in from outside
has the mean colour and no label.
"""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from clusterseg.data.augment import Augmentation, Context, number
from clusterseg.data.geometry import per_channel


def build(value: Any, context: Context) -> Augmentation:
    most = math.radians(number("rotate", value, 0, 180))

    def change(
        image: tf.Tensor, labels: tf.Tensor, draws: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        turn = _about_the_middle(most * (2 * draws[0] - 1), tf.shape(labels))
        # The transform fills all channels with one number.
        below = per_channel(image, offset=[-channel for channel in context.fill])
        turned = per_channel(_transformed(below, turn, "BILINEAR", 0.0), offset=context.fill)
        found = _transformed(labels[..., tf.newaxis], turn, "NEAREST", float(context.no_label))
        return turned, found[..., 0]

    return Augmentation(change, count=1)


def _about_the_middle(angle: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """float32 [1, 8]: of a pixel of the result, (column, row) -> where it was."""
    middle = (tf.cast(size, tf.float32) - 1) / 2
    y, x = middle[0], middle[1]
    cos, sin = tf.cos(angle), tf.sin(angle)
    zero = tf.zeros([])
    return tf.stack(
        [cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y, zero, zero]
    )[tf.newaxis]


def _transformed(pixels: tf.Tensor, turn: tf.Tensor, how: str, fill: float) -> tf.Tensor:
    found = tf.raw_ops.ImageProjectiveTransformV3(
        images=pixels[tf.newaxis],
        transforms=turn,
        output_shape=tf.shape(pixels)[:2],
        interpolation=how,
        fill_mode="CONSTANT",
        fill_value=fill,
    )
    return tf.ensure_shape(found[0], pixels.shape)
