"""`resize: [height, width]`: resizes to so many pixels, before what comes next."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from clusterseg.data import geometry
from clusterseg.data.augment import Augmentation, Context, side_pair


def build(value: Any, context: Context) -> Augmentation:
    size = side_pair("resize", value)

    def change(
        image: tf.Tensor, labels: tf.Tensor, draws: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        return geometry.resize(image, labels, size)

    return Augmentation(change, count=0, reshapes=True)
