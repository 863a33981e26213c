"""Decodes masks to the values that stand in the file, in a TensorFlow graph."""

from __future__ import annotations

import io

import numpy as np
import tensorflow as tf
from PIL import Image

# A PNG's first 8 bytes, then the header chunk; its bit depth and colour type are bytes 24 and 25.
_PNG = b"\x89PNG\r\n\x1a\n"
_EIGHT_BIT_GREY = b"\x08\x00"


def decode_mask(data: tf.Tensor) -> tf.Tensor:
    """A mask file's bytes -> int32 [height, width] of the values as written.

    TensorFlow's own decoder turns palettes into colours and stretches 1, 2 and 4-bit greys to
    255, so it is used for 8-bit grey PNGs only, and Pillow for everything else. Fails with a
    tf.errors.OpError for what is not a picture of one channel.
    """
    grey = tf.logical_and(
        tf.strings.substr(data, 0, len(_PNG)) == _PNG,
        tf.strings.substr(data, 24, 2) == _EIGHT_BIT_GREY,
    )
    values = tf.cond(
        grey,
        lambda: tf.io.decode_png(data, channels=1)[..., 0],
        lambda: tf.numpy_function(_decode_by_pillow, [data], tf.uint8, stateful=False),
    )
    return tf.ensure_shape(tf.cast(values, tf.int32), (None, None))


def _decode_by_pillow(data: bytes) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    with Image.open(io.BytesIO(data)) as picture:
        values = np.asarray(picture)
    if values.dtype == np.bool_:
        values = values.astype(np.uint8)
    if values.ndim != 2 or values.dtype != np.uint8:
        raise ValueError("not a mask: more than one channel, or more than 8 bits")
    return values
