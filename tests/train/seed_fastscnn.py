"""The ImageSegmentation seed's Fast-SCNN by its definition, in Keras' own layers: nothing of ours.

Layers have Keras' automatic names but for the two that the seed names, and stand in a file in the
order of the model's layers. Without the softmax at the end, which changes no class.
"""

from __future__ import annotations

import keras
from keras import layers

NAMED = ("DSConv1_classifier", "DSConv2_classifier")
_BOTTLENECKS = ((64, 2, 3), (96, 2, 3), (128, 1, 3))  # filters, stride of the first, how many


def network(classes: int, side: int, width: float) -> keras.Model:
    """For pictures of `side` × `side`, divisible by 32 × 24; `width` as that of ours."""

    def channels(full: int) -> int:
        return max(8, round(full * width / 8) * 8)

    image = keras.Input((side, side, 3))
    x = _relu(layers.Conv2D(channels(32), 3, 2, padding="same")(image))
    for full in (48, 64):
        x = _relu(layers.SeparableConv2D(channels(full), 3, 2, padding="same")(x))
    detail = x
    for full, stride, count in _BOTTLENECKS:
        for number in range(count):
            before = x
            x = _relu(layers.Conv2D(6 * x.shape[-1], 1, padding="same")(x))
            x = layers.DepthwiseConv2D(3, 1 if number else stride, padding="same")(x)
            x = layers.Conv2D(channels(full), 1, padding="same")(_relu(x))
            x = layers.BatchNormalization()(x)
            x = layers.add([x, before]) if number else x
    cells, parts = side // 32, [x]
    for bins in (2, 4, 6, 8):
        pooled = layers.AveragePooling2D(cells // bins)(x)
        pooled = layers.Conv2D(x.shape[-1], 3, 2, padding="same")(pooled)
        parts.append(keras.ops.image.resize(pooled, (cells, cells)))  # no layer: no weights
    context = layers.UpSampling2D(4)(layers.concatenate(parts))
    detail = layers.BatchNormalization()(layers.Conv2D(channels(128), 1)(detail))
    context = _relu(layers.DepthwiseConv2D(3, padding="same")(context))
    x = layers.add([detail, layers.Conv2D(channels(128), 1)(context)])
    x = _relu(x)
    for name in NAMED:
        x = _relu(layers.SeparableConv2D(channels(128), 3, padding="same", name=name)(x))
    x = layers.BatchNormalization()(layers.Conv2D(classes, 1)(x))
    return keras.Model(image, layers.UpSampling2D(8)(x))


def _relu(x: keras.KerasTensor) -> keras.KerasTensor:
    return layers.ReLU()(layers.BatchNormalization()(x))
