"""The sums of losses that judge a picture as a whole rather than its pixels one by one."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from clusterseg.losses.build import ClassWeights, Loss
from clusterseg.losses.pixels import counted_labels, probabilities, table_of

ClassLosses = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]
"""(probabilities float32 [n, pixels, classes], truth bool of the same shape, counted bool
[n, pixels]) -> float32 [n, classes]: the loss of each class in each picture."""


def mean_over_present(
    classes: int, weights: ClassWeights | None, ignore: int | None, class_losses: ClassLosses
) -> Loss:
    """A loss that is, in each picture, the weighted mean of `class_losses` over the classes of its
    labels, and over the batch the mean of its pictures with a label.

    A picture at a time, so that it does not depend on how a batch is shared out; that of a class
    that a picture has not says nothing of it. Each picture weighs as many as it has pixels,
    labelled or not: the mean is the same, and the sums are as large as those of losses of pixels,
    which float16's scale is meant for (`train.precision.share`).
    """

    def loss(
        labels: tf.Tensor, logits: tf.Tensor, step: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        labels, counted = counted_labels(labels, ignore)
        table = tf.ones([classes]) if weights is None else table_of(weights, labels, counted)
        pictures = tf.shape(labels)[0]
        labels, counted = (tf.reshape(one, [pictures, -1]) for one in (labels, counted))
        predicted = tf.reshape(probabilities(logits), [pictures, -1, classes])
        truth = tf.one_hot(labels, classes, True, False) & counted[..., tf.newaxis]
        present = table * tf.cast(tf.reduce_any(truth, axis=1), tf.float32)
        judged = tf.reduce_sum(present, axis=1)
        of_pictures = tf.reduce_sum(
            tf.where(present > 0, present * class_losses(predicted, truth, counted), 0.0), axis=1
        )
        of_pictures = tf.math.divide_no_nan(of_pictures, judged)
        pixels = tf.cast(tf.shape(labels)[1], tf.float32)
        return (
            pixels * tf.reduce_sum(of_pictures),
            pixels * tf.reduce_sum(tf.cast(judged > 0, tf.float32)),
        )

    return loss
