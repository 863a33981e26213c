"""Cross entropy over pixels, with an ignored label and weights of classes."""

from __future__ import annotations

import tensorflow as tf

from clusterseg.losses.build import ClassWeights, Loss
from clusterseg.losses.pixels import (
    counted_labels,
    cross_entropies,
    pixel_weights,
    smoothed,
)


def build(
    classes: int,
    weights: ClassWeights | None,
    ignore: int | None,
    *,
    label_smoothing: float = 0.0,
) -> Loss:
    """Sum over labelled pixels of w[y] * -log softmax(logits)[y], and the sum of w[y].

    The quotient of the sums is torch's
    `CrossEntropyLoss(weight, ignore_index, reduction="mean", label_smoothing)`.
    """

    def cross_entropy(
        labels: tf.Tensor, logits: tf.Tensor, step: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        labels, counted = counted_labels(labels, ignore)
        table, weight = pixel_weights(weights, labels, counted)
        # `where`, not only a product: 0 x inf at an ignored pixel would be NaN.
        losses = tf.where(weight > 0, cross_entropies(labels, logits) * weight, 0.0)
        losses = smoothed(losses, logits, counted, table, label_smoothing)
        return tf.reduce_sum(losses), tf.reduce_sum(weight)

    return cross_entropy
