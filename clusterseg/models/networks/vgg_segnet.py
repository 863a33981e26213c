"""VGG-SegNet of image-segmentation-keras, as Habana's recipe trains it, with logits at input size.

VGG16 up to one of its blocks, then up to three times: convolution, batch norm, doubled size.
There is no ReLU between the decoder's convolutions, as in the recipe. With 12 classes 11,552,652
parameters train; 11,554,572 with the batch norms' statistics, 12,931,724 with the recipe's doubling
by frozen convolutions.
"""

from __future__ import annotations

from typing import Any, Literal

import keras
import numpy as np
from keras import layers

from clusterseg.data.normalisation import Normalisation
from clusterseg.errors import ClustersegError
from clusterseg.models.backbones.preprocessing import CAFFE
from clusterseg.models.backbones.vgg16 import block, scaled
from clusterseg.models.checks import check_width
from clusterseg.models.layers import Tensor, Upsample, batch_norm

# Filters of the decoder's convolutions, by how often it doubles.
_DECODER = {2: (512, 256, 64), 3: (512, 256, 128, 64)}


def build(
    classes: int,
    size: tuple[int, int],
    *,
    width: float = 1.0,
    encoder_level: int = 3,
    upsampling: Literal["transpose", "nearest"] = "transpose",
) -> keras.Model:
    """VGG-SegNet for any `size` (height, width); see `clusterseg.models.build_model`.

    `encoder_level`, 1 to 4: the encoder ends behind VGG16's block of that number, counted from 0,
    as the recipe counts. `upsampling` doubles the decoder's maps: `transpose` by transposed
    convolutions that copy each pixel and never learn, as the recipe does for its accelerator;
    `nearest` the same without their weights. `width` multiplies the filters (multiples of 8).

    The recipe's logits are of half the input's size; here they are resized to all of it.
    """
    check_width("vgg_segnet", width)
    if encoder_level not in (1, 2, 3, 4):
        raise ClustersegError(
            f"vgg_segnet: encoder_level must be 1 to 4, not {encoder_level}", code="bad-option"
        )
    if upsampling not in ("transpose", "nearest"):
        raise ClustersegError(
            f"vgg_segnet: upsampling must be transpose or nearest, not {upsampling}",
            code="bad-option",
        )
    image = keras.Input((*size, 3), name="image")
    x = image
    for number in range(1, encoder_level + 2):
        x = block(x, number, width=width)
        x = layers.MaxPooling2D(2, padding="same", name=f"block{number}_pool")(x)

    # From the recipe's level 3, a 16th, three doublings lead to a half; from level 1, a quarter,
    # two lead to the whole size.
    doublings = min(3, encoder_level + 1)
    for level, filters in enumerate(_DECODER[doublings]):
        if level:
            x = _doubled(x, upsampling, f"up{level}_double")
        x = layers.Conv2D(scaled(filters, width), 3, padding="same", name=f"up{level}_conv")(x)
        x = batch_norm(x, name=f"up{level}_bn")
    x = layers.Conv2D(classes, 3, padding="same", name="classifier")(x)
    logits = Upsample(size, dtype="float32", name="logits")(x)
    return keras.Model(image, logits, name="vgg_segnet")


def normalisation(**options: object) -> Normalisation:
    """That of the encoder's weights in Keras."""
    return CAFFE


def _doubled(x: Tensor, upsampling: str, name: str) -> Tensor:
    if upsampling == "nearest":
        return layers.UpSampling2D(2, name=name)(x)
    copy = layers.Conv2DTranspose(x.shape[-1], 2, strides=2, kernel_initializer=_Copy(), name=name)
    copy.trainable = False
    return copy(x)


@keras.saving.register_keras_serializable("clusterseg")
class _Copy(keras.initializers.Initializer):  # type: ignore[misc]
    """A transposed convolution of this kernel copies each pixel to all that it makes of it."""

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> np.ndarray[Any, Any]:
        rows, columns, made, given = shape
        return np.tile(np.eye(made, given, dtype=dtype or "float32"), (rows, columns, 1, 1))
