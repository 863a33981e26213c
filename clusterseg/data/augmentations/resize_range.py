"""`resize_range: [shorter, longer]`: resizes by the file's shape, then crops or pads to the size.

The shorter side becomes `shorter` pixels, or less where the longer one would be more than `longer`
(`min_resize_value` and `max_resize_value` of research/deeplab). The shape stays that of the file.

`resize_range: {sides: [shorter, longer], factor: f}` (its `resize_factor`) then makes each side the
next larger 1 + a multiple of f, of which the largest within `longer` is what the longer side may
be: feature maps of output stride f have corners on those of the picture.

Before `scale_file`, as research/deeplab has them, it resizes alone: that one crops or pads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from clusterseg.data import geometry
from clusterseg.data.augment import Augmentation, Context, bad_value, options, pixels, side_pair


def build(value: Any, context: Context) -> Augmentation:
    given = value if isinstance(value, Mapping) else {"sides": value}
    found = options("resize_range", given, {"sides": None, "factor": 1})
    shorter, longer = side_pair("resize_range", found["sides"])
    factor = pixels("resize_range: factor", found["factor"])
    if shorter > longer:
        raise bad_value(f"resize_range must be [shorter, longer] side, not {found['sides']!r}")
    if 1 < factor >= longer:
        raise bad_value(f"resize_range: factor must be less than {longer}, not {factor}")
    largest = 1 + (longer - 1) // factor * factor
    fill, no_label = context.fill, context.no_label

    def wanted(labels: tf.Tensor) -> tf.Tensor:
        size = tf.cast(tf.shape(labels), tf.float32)
        scale = tf.minimum(shorter / tf.reduce_min(size), largest / tf.reduce_max(size))
        scaled = tf.maximum(tf.cast(tf.round(scale * size), tf.int32), 1)
        return 1 + (scaled + factor - 2) // factor * factor

    def change(
        image: tf.Tensor, labels: tf.Tensor, draws: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        return geometry.crop_or_pad(
            image,
            labels,
            context.size,
            draws,
            scaled=wanted(labels),
            fill=fill,
            no_label=no_label,
        )

    def resize(
        image: tf.Tensor, labels: tf.Tensor, draws: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        return geometry.resize(image, labels, wanted(labels))

    before = {"scale_file": Augmentation(resize, count=0, reshapes=True)}
    return Augmentation(change, count=2, resizes=True, before=before)
