"""Soft Dice loss: one minus the overlap of what is predicted and what is there."""

from __future__ import annotations

import tensorflow as tf

from clusterseg.losses.build import ClassWeights, Loss
from clusterseg.losses.pictures import mean_over_present


def build(
    classes: int, weights: ClassWeights | None, ignore: int | None, *, smooth: float = 1.0
) -> Loss:
    """In each picture, the mean over its classes of 1 - (2 sum pg + s) / (sum p + sum g + s).

    p are the probabilities and g the truth (0 or 1) of a class over the labelled pixels, s is
    `smooth`. After Milletari et al., "V-Net" (3DV 2016), with p and g themselves rather than their
    squares below.
    """

    def losses(predicted: tf.Tensor, truth: tf.Tensor, counted: tf.Tensor) -> tf.Tensor:
        predicted = tf.where(counted[..., tf.newaxis], predicted, 0.0)
        both = tf.reduce_sum(tf.where(truth, predicted, 0.0), axis=1)
        either = tf.reduce_sum(predicted, axis=1) + tf.reduce_sum(tf.cast(truth, tf.float32), 1)
        return 1 - tf.math.divide_no_nan(2 * both + smooth, either + smooth)

    return mean_over_present(classes, weights, ignore, losses)
