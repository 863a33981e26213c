"""`erase: {probability: p, area: [min, max], ratio: [min, max]}`: one rectangle in one colour.

With probability p. Its area is a fraction of the picture's, drawn from `area`, its width divided by
its height drawn from `ratio` (evenly in its logarithm), no side longer than the picture's; place
and colour are drawn too. Labels stay (Zhong et al., "Random Erasing", AAAI 2020).
"""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from clusterseg.data.augment import Augmentation, Context, interval, number, options
from clusterseg.data.colors import filled


def build(value: Any, context: Context) -> Augmentation:
    found = options(
        "erase", value, {"probability": 0.5, "area": (0.02, 0.4), "ratio": (0.3, 1 / 0.3)}
    )
    probability = number("erase: probability", found["probability"], 0, 1)
    least, most = interval("erase: area", found["area"], 1e-4, 1)
    narrow, wide = interval("erase: ratio", found["ratio"], 0.01, 100)

    def change(
        image: tf.Tensor, labels: tf.Tensor, draws: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        size = tf.cast(tf.shape(labels), tf.float32)
        area = size[0] * size[1] * (least + (most - least) * draws[1])
        low, high = math.log(narrow), math.log(wide)
        ratio = tf.exp(low + (high - low) * draws[2])
        sides = tf.round(tf.sqrt(tf.stack([area / ratio, area * ratio])))
        sides = tf.clip_by_value(sides, 1.0, size)
        first = tf.minimum(tf.floor(draws[3:5] * (size - sides + 1)), size - sides)
        color = tf.floor(256 * draws[5:8])
        image = tf.cond(
            draws[0] < probability,
            lambda: filled(image, first, sides, color),
            lambda: image,
        )
        return image, labels

    return Augmentation(change, count=8)
