"""Focal loss: cross entropy in which pixels that are right already count less."""

from __future__ import annotations

import tensorflow as tf

from clusterseg.losses.build import ClassWeights, Loss
from clusterseg.losses.pixels import counted_labels, cross_entropies, pixel_weights

_LEAST = 1e-12  # of 1 - p: below, a gamma under 1 has an infinite slope


def build(
    classes: int,
    weights: ClassWeights | None,
    ignore: int | None,
    *,
    gamma: float = 2.0,
    alpha: float = 1.0,
) -> Loss:
    """Sum over labelled pixels of alpha * w[y] * (1 - p[y])^gamma * -log p[y], and the sum of w[y].

    Lin et al., "Focal Loss for Dense Object Detection" (ICCV 2017), equation 5. Its alpha is a
    weight of one class against the other; with more than two that is `class_weights`, and `alpha`
    a factor of all.
    """

    def focal(
        labels: tf.Tensor, logits: tf.Tensor, step: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        labels, counted = counted_labels(labels, ignore)
        _, weight = pixel_weights(weights, labels, counted)
        losses = cross_entropies(labels, logits)
        wrong = tf.maximum(-tf.math.expm1(-losses), _LEAST)  # 1 - p[y], exact near 0
        losses = alpha * tf.pow(wrong, gamma) * losses
        return tf.reduce_sum(tf.where(weight > 0, losses * weight, 0.0)), tf.reduce_sum(weight)

    return focal
