"""`color: d`: makes colours stronger or weaker.

Moves pixels away from their own grey or towards it, by a factor from 1 - d to 1 + d; 0 would leave
grey alone (Pillow's ImageEnhance.Color).
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from clusterseg.data.augment import Augmentation, Context, number
from clusterseg.data.colors import blended, grey


def build(value: Any, context: Context) -> Augmentation:
    most = number("color", value, 0, 1)

    def change(
        image: tf.Tensor, labels: tf.Tensor, draws: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        return blended(image, grey(image), 1 + most * (2 * draws[0] - 1)), labels

    return Augmentation(change, count=1)
