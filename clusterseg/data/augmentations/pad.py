"""`pad: n`: n pixels of the mean colour and without a label on each side."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from clusterseg.data import geometry
from clusterseg.data.augment import Augmentation, Context, pixels


def build(value: Any, context: Context) -> Augmentation:
    around = tf.fill([2, 2], pixels("pad", value))

    def change(
        image: tf.Tensor, labels: tf.Tensor, draws: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        return geometry.pad(image, labels, around, fill=context.fill, no_label=context.no_label)

    return Augmentation(change, count=0, reshapes=True)
