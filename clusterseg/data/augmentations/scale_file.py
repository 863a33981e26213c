"""`scale_file: {factor: [min, max], step: s}`: `scale` relative to the file's own size.

As research/deeplab trains: the factor is one of min, min + s, ... up to max (any between them with
`step: 0`), then the picture is cropped or padded to the size at a random place.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from clusterseg.data.augment import Augmentation, Context, interval, number, options
from clusterseg.data.geometry import crop_or_pad


def build(value: Any, context: Context) -> Augmentation:
    found = options("scale_file", value, {"factor": (0.5, 2.0), "step": 0.25})
    low, high = interval("scale_file: factor", found["factor"], 0.05, 20)
    step = number("scale_file: step", found["step"], 0, 20)
    # 1e-6: the quotient of two decimal fractions may end just below a whole number.
    steps = int((high - low) / step + 1e-6) if step else 0
    fill, no_label = context.fill, context.no_label

    def change(
        image: tf.Tensor, labels: tf.Tensor, draws: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        if step:
            which = tf.minimum(tf.floor(draws[0] * (steps + 1)), steps)
            factor = low + step * which
        else:
            factor = low + (high - low) * draws[0]
        scaled = tf.round(factor * tf.cast(tf.shape(labels), tf.float32))
        scaled = tf.maximum(tf.cast(scaled, tf.int32), 1)
        return crop_or_pad(
            image, labels, context.size, draws[1:3], scaled=scaled, fill=fill, no_label=no_label
        )

    return Augmentation(change, count=3, resizes=True)
