"""Decodes masks to the values that stand in the file, in a TensorFlow graph."""

from __future__ import annotations

import io

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image

from clusterseg.data.dataset import MaskKind
from clusterseg.data.files import mask_values

# A PNG's first 8 bytes, then the header chunk; its bit depth and colour type are bytes 24 and 25.
_PNG = b"\x89PNG\r\n\x1a\n"
_GREY, _GREY_16, _COLOR = b"\x08\x00", b"\x10\x00", b"\x08\x02"


def decode_mask(data: tf.Tensor, kind: MaskKind = "values") -> tf.Tensor:
    """A mask file's bytes -> int32 [height, width] of the values as written.

    TensorFlow's own decoder turns palettes into colours and stretches 1, 2 and 4-bit greys to
    255, so it is used for PNGs of 8 and 16-bit grey and of 8-bit colour only, and Pillow for
    everything else. Fails with a tf.errors.OpError for what is no mask of this kind.
    """
    start = tf.strings.substr(data, 0, len(_PNG)) == _PNG
    depth = tf.strings.substr(data, 24, 2)

    def by_pillow() -> tf.Tensor:
        return tf.numpy_function(
            lambda content: _decode_by_pillow(content, kind), [data], tf.int32, stateful=False
        )

    def grey(dtype: tf.DType) -> tf.Tensor:
        return tf.cast(tf.io.decode_png(data, channels=1, dtype=dtype)[..., 0], tf.int32)

    if kind == "palette":
        values = by_pillow()
    elif kind == "blue":
        values = tf.cond(
            start & (depth == _COLOR),
            lambda: tf.cast(tf.io.decode_png(data, channels=3)[..., 2], tf.int32),
            by_pillow,
        )
    else:
        values = tf.case(
            [
                (start & (depth == _GREY), lambda: grey(tf.uint8)),
                (start & (depth == _GREY_16), lambda: grey(tf.uint16)),
            ],
            default=by_pillow,
        )
    return tf.ensure_shape(values, (None, None))


def _decode_by_pillow(data: bytes, kind: MaskKind) -> NDArray[np.int32]:
    with Image.open(io.BytesIO(data)) as picture:
        return mask_values(picture, kind)
