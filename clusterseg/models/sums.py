"""Sums that come out bit for bit alike on hosts with another number of cores."""

from __future__ import annotations

import tensorflow as tf

_IN_ONE_GO = 4096  # elements: each such row is added up by one thread (Eigen's reductions)


def ordered_sum(tensor: tf.Tensor) -> tf.Tensor:
    """The sum of all elements, in an order that depends on their number alone; a scalar.

    The tensor's shape must be known.
    """
    vector = tf.reshape(tensor, [-1])
    while vector.shape[0] > 1:
        width = min(vector.shape[0], _IN_ONE_GO)
        vector = tf.pad(vector, [[0, -vector.shape[0] % width]])
        vector = tf.reduce_sum(tf.reshape(vector, [-1, width]), axis=1)
    return vector[0]
