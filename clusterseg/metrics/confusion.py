"""The confusion matrix of label maps, in TensorFlow (`clusterseg.metrics.scores` judges it)."""

from __future__ import annotations

import tensorflow as tf

_MOST_CLASSES = 46340  # bincount counts int32 cells, and classes ** 2 must fit


def confusion_matrix(
    labels: tf.Tensor, predictions: tf.Tensor, classes: int, ignore: int | None
) -> tf.Tensor:
    """int64 [classes, classes]; rows are the truth, columns the prediction; entries are pixels.

    `labels` and `predictions` are integers of the same shape; pixels whose label is `ignore` or
    negative (padding) are not counted. Matrices of batches and ranks add up to that of all pixels.
    Raises tf.errors.InvalidArgumentError for a label or prediction outside 0 to classes - 1.
    """
    if classes > _MOST_CLASSES:
        raise ValueError(f"a confusion matrix of {classes} classes is too large")
    labels = tf.reshape(tf.cast(labels, tf.int32), [-1])
    predictions = tf.reshape(tf.cast(predictions, tf.int32), [-1])
    counted = labels >= 0
    if ignore is not None:
        counted &= labels != ignore
    labels = tf.boolean_mask(labels, counted)
    predictions = tf.boolean_mask(predictions, counted)
    with tf.control_dependencies(
        [_within(labels, classes, "label"), _within(predictions, classes, "prediction")]
    ):
        cells = labels * classes + predictions
    counts = tf.math.bincount(cells, minlength=classes**2, maxlength=classes**2, dtype=tf.int64)
    return tf.reshape(counts, [classes, classes])


def _within(values: tf.Tensor, classes: int, what: str) -> tf.Operation:
    wrong = tf.logical_or(values < 0, values >= classes)
    message = f"{what} outside 0 to {classes - 1}"
    return tf.debugging.assert_equal(tf.reduce_any(wrong), False, message=message)
