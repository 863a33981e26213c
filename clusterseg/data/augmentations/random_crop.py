"""`random_crop: [height, width]`: a part of the picture, in pixels of what came in.

At a random place; where that is smaller it has the mean colour and no label around it.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from clusterseg.data.augment import Augmentation, Context, side_pair
from clusterseg.data.geometry import crop_or_pad


def build(value: Any, context: Context) -> Augmentation:
    size = side_pair("random_crop", value)

    def change(
        image: tf.Tensor, labels: tf.Tensor, draws: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        return crop_or_pad(image, labels, size, draws, fill=context.fill, no_label=context.no_label)

    return Augmentation(change, count=2, reshapes=True)
