"""Cross entropy over pixels, with an ignored label and weights of classes."""

from __future__ import annotations

import tensorflow as tf

from clusterseg.losses.build import Loss


def build(classes: int, weights: tuple[float, ...] | None, ignore: int | None) -> Loss:
    """Sum over labelled pixels of w[y] * -log softmax(logits)[y], and the sum of w[y].

    Negative labels (padding) are ignored too. The quotient of the sums is torch's
    `CrossEntropyLoss(weight, ignore_index, reduction="mean")`.
    """
    table = None if weights is None else tf.constant(weights, tf.float32)

    def cross_entropy(
        labels: tf.Tensor, logits: tf.Tensor, step: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        counted = labels >= 0
        if ignore is not None:
            counted &= labels != ignore
        # The op fails on labels out of range (or gives NaN on a GPU), so ignored ones become 0
        # before it and get weight 0 after it.
        safe = tf.where(counted, labels, 0)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(safe, tf.cast(logits, tf.float32))
        weight = tf.cast(counted, tf.float32)
        if table is not None:
            weight *= tf.gather(table, safe)
        # `where`, not only a product: 0 x inf at an ignored pixel would be NaN.
        return tf.reduce_sum(tf.where(weight > 0, losses * weight, 0.0)), tf.reduce_sum(weight)

    return cross_entropy
