"""Lovász-softmax: a surrogate of the intersection over union that gradients can follow."""

from __future__ import annotations

import tensorflow as tf

from clusterseg.losses.build import ClassWeights, Loss
from clusterseg.losses.pictures import mean_over_present


def build(classes: int, weights: ClassWeights | None, ignore: int | None) -> Loss:
    """In each picture, the mean over its classes of the Lovász extension of 1 - IoU.

    Berman, Triki and Blaschko, "The Lovász-Softmax loss" (CVPR 2018), equations 9 to 12: the errors
    of a class, sorted from the largest down, each times what its pixel adds to the Jaccard loss of
    the set of pixels before it.
    """

    def losses(predicted: tf.Tensor, truth: tf.Tensor, counted: tf.Tensor) -> tf.Tensor:
        errors = tf.where(truth, 1 - predicted, predicted)
        errors = tf.transpose(errors, [2, 0, 1])
        truth = tf.transpose(truth, [2, 0, 1])
        # The extension is linear between changes of the order: its gradient are the increments,
        # taken as numbers. Class by class: sorting needs several times the memory of the errors.
        steps = tf.map_fn(
            lambda one: _increments(one[0], one[1], counted),
            (tf.stop_gradient(errors), truth),
            fn_output_signature=tf.float32,
            parallel_iterations=1,
        )
        return tf.transpose(tf.reduce_sum(errors * tf.stop_gradient(steps), axis=2))

    return mean_over_present(classes, weights, ignore, losses)


def _increments(errors: tf.Tensor, truth: tf.Tensor, counted: tf.Tensor) -> tf.Tensor:
    """float32 [n, pixels]: what each pixel adds to 1 - I / U where the pixels with larger errors
    are wrong already; 0 where it does not count.

    A pixel of the class takes one off the intersection: 1 / U. Another one adds one to the union:
    I / (U (U + 1)). As differences of 1 - I / U they would drown in rounding: in a picture of a
    million pixels they are of the size of float32's last bit.
    """
    ranked = tf.where(counted, errors, -1.0)  # last
    order = tf.argsort(ranked, axis=1, direction="DESCENDING", stable=True)
    hit = tf.gather(truth, order, axis=1, batch_dims=1)
    real = tf.gather(counted, order, axis=1, batch_dims=1)
    all_hits = tf.reduce_sum(tf.cast(truth, tf.int32), axis=1, keepdims=True)
    hits = tf.cumsum(tf.cast(hit, tf.int32), axis=1)
    misses = tf.cumsum(tf.cast(real & ~hit, tf.int32), axis=1)
    # float64: the union is squared.
    union = tf.cast(all_hits + misses, tf.float64)  # with this pixel
    left = tf.cast(all_hits - hits, tf.float64)
    of_hit = tf.math.divide_no_nan(tf.ones([], tf.float64), union)
    of_miss = tf.math.divide_no_nan(left, union * (union - 1))
    added = tf.cast(tf.where(hit, of_hit, tf.where(real, of_miss, 0.0)), tf.float32)
    rows = tf.broadcast_to(tf.range(tf.shape(order)[0])[:, tf.newaxis], tf.shape(order))
    return tf.scatter_nd(tf.stack([rows, order], axis=-1), added, tf.shape(order))
