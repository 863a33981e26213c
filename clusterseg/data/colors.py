"""Changes of colours, in a TensorFlow graph. Pictures are float32 [h, w, 3] in 0 to 255."""

from __future__ import annotations

import tensorflow as tf

# ITU-R BT.601, as Pillow's mode L.
_LUMA = (0.299, 0.587, 0.114)


def grey(image: tf.Tensor) -> tf.Tensor:
    """float32 [h, w, 1]: how bright each pixel is."""
    return tf.tensordot(image, tf.constant(_LUMA), 1)[..., tf.newaxis]


def blended(image: tf.Tensor, other: tf.Tensor | float, factor: tf.Tensor) -> tf.Tensor:
    """`other` at factor 0, the picture at 1, away from `other` above; held within 0 to 255."""
    return tf.clip_by_value(other + factor * (image - other), 0.0, 255.0)


def filled(image: tf.Tensor, first: tf.Tensor, sides: tf.Tensor, color: tf.Tensor) -> tf.Tensor:
    """The rectangle of `sides` (height, width) from `first` (row, column) on in one colour; as much
    of it as is inside."""
    rows, columns = (
        (place >= first[axis]) & (place < first[axis] + sides[axis])
        for axis, place in (
            (0, tf.range(tf.shape(image)[0], dtype=tf.float32)),
            (1, tf.range(tf.shape(image)[1], dtype=tf.float32)),
        )
    )
    inside = rows[:, tf.newaxis] & columns[tf.newaxis]
    return tf.where(inside[..., tf.newaxis], color, image)
