"""Predictions at the size of the files, from logits at the size that the network saw.

Ground truth is judged as it is in its file: a mask that is shrunk first loses what is thin. Logits
are resized, bilinearly, and the best class is taken afterwards, in strips of rows, so that memory
does not grow with the classes (150 of 2000 x 3000 pixels would be 3.6 GB).
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

_STRIP = 1 << 24  # numbers in a strip: 64 MB


def predictions_at_file_size(logits: tf.Tensor, sizes: tf.Tensor, padded: tf.Tensor) -> tf.Tensor:
    """int32 [n, H, W]: the best classes; in a graph.

    `logits` float32 [n, height, width, classes]; `sizes` int32 [n, 2] are (height, width) of each
    picture's file, `padded` int32 [2] is (H, W), no smaller than any of them: what is right of or
    below a picture is 0. Of a picture the classes are the same whatever batch it is in.
    """

    def of_picture(given: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        image, size = given
        found = over_strips(image, size, lambda _, strip: best_class(strip), tf.int32)
        return tf.pad(found, [[0, padded[0] - size[0]], [0, padded[1] - size[1]]])

    found = tf.map_fn(
        of_picture,
        (logits, sizes),
        parallel_iterations=1,
        fn_output_signature=tf.TensorSpec([None, None], tf.int32),
    )
    return tf.ensure_shape(found, [None, None, None])


def best_class(scores: tf.Tensor) -> tf.Tensor:
    """int32 [...]: the class with the highest of the `scores` [..., classes]."""
    return tf.argmax(scores, axis=-1, output_type=tf.int32)


def over_strips(
    image: tf.Tensor,
    size: tf.Tensor,
    judge: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    dtype: tf.DType,
) -> tf.Tensor:
    """What judge(first row, float32 [rows, width, channels]) gives for the strips of `image`
    [h, w, channels] resized to `size`, one below the other; in a graph.

    `judge` gives `dtype` [rows, width].
    """
    rows = tf.maximum(1, _STRIP // tf.maximum(1, size[1] * tf.shape(image)[2]))
    parts = tf.TensorArray(
        dtype, 0, dynamic_size=True, infer_shape=False, element_shape=[None, None]
    )

    def one(first: tf.Tensor, parts: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
        strip = resized_rows(image, size, first, tf.minimum(rows, size[0] - first))
        return first + rows, parts.write(first // rows, judge(first, strip))

    _, parts = tf.while_loop(
        lambda first, _: first < size[0], one, (tf.constant(0), parts), parallel_iterations=1
    )
    return parts.concat()


def resized_rows(
    image: tf.Tensor, size: tf.Tensor, first: tf.Tensor, count: tf.Tensor
) -> tf.Tensor:
    """float32 [count, width, channels]: rows from `first` on of `image` [h, w, channels] resized to
    `size`, as `tf.image.resize` does it (bilinear, half-pixel centres, no antialiasing)."""
    image = tf.cast(image, tf.float32)
    old = tf.shape(image)[0]
    step = tf.cast(old, tf.float32) / tf.cast(size[0], tf.float32)
    place = (tf.cast(first + tf.range(count), tf.float32) + 0.5) * step - 0.5
    below = tf.floor(place)
    upper = tf.clip_by_value(tf.cast(below, tf.int32), 0, old - 1)
    lower = tf.clip_by_value(tf.cast(below, tf.int32) + 1, 0, old - 1)
    weight = (place - below)[:, tf.newaxis, tf.newaxis]
    above = tf.gather(image, upper)
    strip = above + (tf.gather(image, lower) - above) * weight
    return tf.image.resize(strip, tf.stack([count, size[1]]), method="bilinear")
