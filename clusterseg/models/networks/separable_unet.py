"""The U-Net of separable convolutions of the ImageSegmentation seed.

A level of the encoder is a plain and a separable convolution, all else is separable; each is
followed by batch norm and ReLU. 348,998 parameters with 20 classes, of which 3,428 are moving
statistics.
"""

from __future__ import annotations

import keras
from keras import layers

from clusterseg.data.normalisation import Normalisation
from clusterseg.models.backbones.preprocessing import ZERO_TO_ONE
from clusterseg.models.checks import check_divisible, check_dropout, check_filters
from clusterseg.models.layers import BatchNormalization, Dropout, Tensor

_LEVELS = 4  # halvings; the input must be divisible by 2 ** _LEVELS


def build(
    classes: int,
    size: tuple[int, int],
    *,
    base_filters: int = 16,
    head_filters: int | None = 2,
    dropout: float = 0.5,
) -> keras.Model:
    """Separable U-Net for `size` (height, width), both divisible by 16; see `build_model`.

    `base_filters` of the first level, doubled at each of the four halvings. `head_filters` as
    those of unet: null learns better with many classes. `dropout` at the two deepest levels.
    """
    check_divisible("separable_unet", size, 2**_LEVELS)
    check_filters("separable_unet", "base_filters", base_filters)
    check_filters("separable_unet", "head_filters", head_filters)
    check_dropout("separable_unet", dropout)
    image = keras.Input((*size, 3), name="image")
    x = image
    skips: list[Tensor] = []
    for level in range(_LEVELS):
        name, filters = f"down_{level}", base_filters * 2**level
        x = _plain(x, filters, f"{name}_a")
        x = _separable(x, filters, 3, f"{name}_b")
        if level == _LEVELS - 1 and dropout:
            x = Dropout(dropout, name=f"{name}_dropout")(x)
        skips.append(x)
        x = layers.MaxPooling2D(2, name=f"{name}_pool")(x)

    x = _double(x, base_filters * 2**_LEVELS, "bottom")
    if dropout:
        x = Dropout(dropout, name="bottom_dropout")(x)

    for level in reversed(range(_LEVELS)):
        name, filters = f"up_{level}", base_filters * 2**level
        x = layers.UpSampling2D(2, name=f"{name}_upsample")(x)
        x = _separable(x, filters, 2, f"{name}_shrink")
        x = layers.Concatenate(name=f"{name}_concat")([skips[level], x])
        x = _double(x, filters, name)

    if head_filters is not None:
        x = _plain(x, head_filters, "head")
    logits = layers.Conv2D(classes, 1, dtype="float32", name="logits")(x)
    return keras.Model(image, logits, name="separable_unet")


def normalisation(**options: object) -> Normalisation:
    """That of the seed, whose files of weights fit."""
    return ZERO_TO_ONE


def _double(x: Tensor, filters: int, name: str) -> Tensor:
    return _separable(_separable(x, filters, 3, f"{name}_a"), filters, 3, f"{name}_b")


def _plain(x: Tensor, filters: int, name: str) -> Tensor:
    x = layers.Conv2D(
        filters, 3, padding="same", kernel_initializer="he_normal", name=f"{name}_conv"
    )(x)
    return _bn_relu(x, name)


def _separable(x: Tensor, filters: int, kernel: int, name: str) -> Tensor:
    x = layers.SeparableConv2D(
        filters,
        kernel,
        padding="same",
        depthwise_initializer="he_normal",
        pointwise_initializer="he_normal",
        name=f"{name}_conv",
    )(x)
    return _bn_relu(x, name)


def _bn_relu(x: Tensor, name: str) -> Tensor:
    # Keras' epsilon: the seed's own files of weights go with it.
    x = BatchNormalization(momentum=0.9, epsilon=1e-3, name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x)
