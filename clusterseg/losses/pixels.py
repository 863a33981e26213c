"""What the losses share: which pixels count, their log probabilities, weights of classes."""

from __future__ import annotations

import tensorflow as tf

from clusterseg.losses.build import ClassWeights


def counted_labels(labels: tf.Tensor, ignore: int | None) -> tuple[tf.Tensor, tf.Tensor]:
    """(labels with 0 where they count nowhere, bool: whether they count).

    `ignore` and negative labels (padding) don't count. TensorFlow's operations fail on labels out
    of range, or give NaN on a GPU, so those become 0 before them and get no weight after.
    """
    counted = labels >= 0
    if ignore is not None:
        counted &= labels != ignore
    return tf.where(counted, labels, 0), counted


def cross_entropies(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """float32 [n, h, w]: -log softmax(logits)[label], whatever the logits' precision."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, tf.cast(logits, tf.float32))


def probabilities(logits: tf.Tensor) -> tf.Tensor:
    """float32 softmax: half precision would lose what sums over a picture are made of."""
    return tf.nn.softmax(tf.cast(logits, tf.float32))


def pixel_weights(
    weights: ClassWeights | None, labels: tf.Tensor, counted: tf.Tensor
) -> tuple[tf.Tensor | None, tf.Tensor]:
    """(weights of the classes or None, float32 [n, h, w]: each pixel's, 0 where it is ignored)."""
    share = tf.cast(counted, tf.float32)
    if weights is None:
        return None, share
    table = table_of(weights, labels, counted)
    return table, share * tf.gather(table, labels)


def smoothed(
    losses: tf.Tensor,
    logits: tf.Tensor,
    counted: tf.Tensor,
    table: tf.Tensor | None,
    smoothing: float,
) -> tf.Tensor:
    """Weighted cross entropies `losses` against labels of which `smoothing` is spread evenly.

    (1 - e) w[y] (-log p[y]) + e / K * sum over classes of w[k] (-log p[k]): Szegedy et al.,
    "Rethinking the Inception Architecture", section 7, with weights as torch's
    `CrossEntropyLoss(weight, label_smoothing)` has them.
    """
    if not smoothing:
        return losses
    logits = tf.cast(logits, tf.float32)
    spread = -tf.nn.log_softmax(logits)
    if table is not None:
        spread *= table
    spread = tf.where(counted, tf.reduce_mean(spread, axis=-1), 0.0)
    return (1 - smoothing) * losses + smoothing * spread


def table_of(weights: ClassWeights, labels: tf.Tensor, counted: tf.Tensor) -> tf.Tensor:
    """float32 [classes]. Without a table of their own: 1 - the class's share of the batch's
    labelled pixels, the rule of Blueoil's LmSegnet.

    Ranks add whole numbers up, split so that float32 holds them exactly.
    """
    if weights.table is not None:
        return tf.constant(weights.table, tf.float32)
    found = tf.math.bincount(
        tf.reshape(tf.where(counted, labels, weights.classes), [-1]),
        minlength=weights.classes + 1,
        maxlength=weights.classes + 1,
        dtype=tf.int32,
    )[: weights.classes]
    if weights.over_ranks is None:
        counts = tf.cast(found, tf.float64)
    else:
        halves = tf.cast(tf.concat([found // _HALF, found % _HALF], 0), tf.float32)
        high, low = tf.split(tf.cast(weights.over_ranks(halves), tf.float64), 2)
        counts = high * _HALF + low
    share = tf.math.divide_no_nan(counts, tf.reduce_sum(counts))
    return tf.stop_gradient(tf.cast(1 - share, tf.float32))


# float32 holds whole numbers to 2^24: the halves of 2^31 pixels stay below it on 256 ranks.
_HALF = 2**16
