"""Online hard example mining: cross entropy of each picture's hardest pixels."""

from __future__ import annotations

import tensorflow as tf

from clusterseg.losses.build import ClassWeights, Loss
from clusterseg.losses.pixels import (
    counted_labels,
    cross_entropies,
    pixel_weights,
    smoothed,
)

_BELOW_ALL = -1.0  # cross entropies are not negative


def build(
    classes: int,
    weights: ClassWeights | None,
    ignore: int | None,
    *,
    label_smoothing: float = 0.0,
    top_k: float = 0.25,
    mining_steps: int = 0,
) -> Loss:
    """The sum over the k labelled pixels of each picture with the largest weighted cross entropy.

    k is `top_k` of the picture's labelled pixels, rounded, at least one. Over the first
    `mining_steps` optimizer steps the fraction goes linearly from 1 to `top_k`
    (`hard_example_mining_step` of research/deeplab, which takes its pixels from the whole batch:
    a picture at a time the loss does not depend on how a batch is shared out among ranks).

    The weight sum follows from the labels alone: k times the mean weight of the picture's labelled
    pixels, so that with `top_k` 1 the quotient is that of `cross_entropy`.
    """

    def ohem(
        labels: tf.Tensor, logits: tf.Tensor, step: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        labels, counted = counted_labels(labels, ignore)
        table, weight = pixel_weights(weights, labels, counted)
        losses = tf.where(weight > 0, cross_entropies(labels, logits) * weight, 0.0)
        losses = smoothed(losses, logits, counted, table, label_smoothing)

        pictures = tf.shape(labels)[0]
        losses = tf.reshape(tf.where(counted, losses, _BELOW_ALL), [pictures, -1])
        labelled = tf.reduce_sum(tf.cast(counted, tf.int32), axis=[1, 2])
        taken = _taken(labelled, fraction(step))
        hardest = tf.math.top_k(losses, tf.reduce_max(taken, axis=0)).values
        among = tf.sequence_mask(taken, tf.shape(hardest)[1])
        mean_weight = tf.math.divide_no_nan(
            tf.reduce_sum(weight, axis=[1, 2]), tf.cast(labelled, tf.float32)
        )
        return (
            tf.reduce_sum(tf.where(among, hardest, 0.0)),
            tf.reduce_sum(mean_weight * tf.cast(taken, tf.float32)),
        )

    def fraction(step: tf.Tensor | None) -> tf.Tensor:
        if step is None or not mining_steps:
            return tf.constant(top_k, tf.float64)
        done = tf.minimum(tf.cast(step, tf.float64) / mining_steps, 1.0)
        return done * top_k + (1 - done)

    return ohem


def _taken(labelled: tf.Tensor, fraction: tf.Tensor) -> tf.Tensor:
    """int32 [n]; float64, for float32 holds whole numbers to 2^24 only."""
    wanted = tf.cast(tf.round(fraction * tf.cast(labelled, tf.float64)), tf.int32)
    return tf.minimum(tf.maximum(wanted, 1), labelled)
