"""U-Net (Ronneberger, Fischer, Brox: arXiv 1505.04597) as the ImageSegmentation seed builds it.

`same` padding, dropout before the two deepest levels' ends, and a head of two filters before the
classes: 31,032,891 parameters with 19 classes. Maps are doubled by the nearest pixel and a 2x2
convolution, or, as the seed does it last, by a 2x2 transposed one, which has as many weights.
"""

from __future__ import annotations

from typing import Literal

import keras
from keras import layers

from clusterseg.data.normalisation import IMAGENET, Normalisation
from clusterseg.errors import ClustersegError
from clusterseg.models.backbones.preprocessing import ZERO_TO_ONE
from clusterseg.models.checks import check_divisible, check_dropout, check_filters
from clusterseg.models.layers import Dropout, Tensor

_LEVELS = 4  # halvings; the input must be divisible by 2 ** _LEVELS
_DIVISOR = 2**_LEVELS


def build(
    classes: int,
    size: tuple[int, int],
    *,
    base_filters: int = 64,
    head_filters: int | None = 2,
    dropout: float = 0.5,
    upsampling: Literal["nearest", "transpose"] = "nearest",
) -> keras.Model:
    """U-Net for `size` (height, width), both divisible by 16; see `build_model`.

    `base_filters` of the first level, doubled at each of the four halvings. `head_filters`: the
    3x3 convolution before the classes; the seed's 2 gives the published parameter count but only
    two features to tell all classes by, so `head_filters: null` (no such layer) learns better
    with many classes. `dropout` at the two deepest levels. `upsampling`: `transpose` for the
    seed's files of weights, which want pictures from 0 to 1.
    """
    check_divisible("unet", size, _DIVISOR)
    check_filters("unet", "base_filters", base_filters)
    check_filters("unet", "head_filters", head_filters)
    check_dropout("unet", dropout)
    if upsampling not in ("nearest", "transpose"):
        raise ClustersegError(
            f"unet: upsampling must be nearest or transpose, not {upsampling}", code="bad-option"
        )
    image = keras.Input((*size, 3), name="image")
    x = image
    skips: list[Tensor] = []
    for level in range(_LEVELS):
        x = _double_conv(x, base_filters * 2**level, f"down_{level}")
        if level == _LEVELS - 1 and dropout:
            x = Dropout(dropout, name=f"down_{level}_dropout")(x)
        skips.append(x)
        x = layers.MaxPooling2D(2, name=f"down_{level}_pool")(x)

    x = _double_conv(x, base_filters * 2**_LEVELS, "bottom")
    if dropout:
        x = Dropout(dropout, name="bottom_dropout")(x)

    for level in reversed(range(_LEVELS)):
        name, filters = f"up_{level}", base_filters * 2**level
        x = _doubled(x, filters, upsampling, name)
        x = layers.Concatenate(name=f"{name}_concat")([skips[level], x])
        x = _double_conv(x, filters, name)

    if head_filters is not None:
        x = _conv(x, head_filters, 3, "head")
    logits = layers.Conv2D(classes, 1, dtype="float32", name="logits")(x)
    return keras.Model(image, logits, name="unet")


def normalisation(*, upsampling: str = "nearest", **_: object) -> Normalisation:
    """ImageNet's, with which it learns faster; that of the seed where its weights fit."""
    return ZERO_TO_ONE if upsampling == "transpose" else IMAGENET


def _doubled(x: Tensor, filters: int, upsampling: str, name: str) -> Tensor:
    if upsampling == "nearest":
        x = layers.UpSampling2D(2, name=f"{name}_upsample")(x)
        return _conv(x, filters, 2, f"{name}_shrink")
    return layers.Conv2DTranspose(
        filters,
        2,
        strides=2,
        activation="relu",
        kernel_initializer="he_normal",
        name=f"{name}_transpose",
    )(x)


def _double_conv(x: Tensor, filters: int, name: str) -> Tensor:
    return _conv(_conv(x, filters, 3, f"{name}_a"), filters, 3, f"{name}_b")


def _conv(x: Tensor, filters: int, kernel: int, name: str) -> Tensor:
    return layers.Conv2D(
        filters,
        kernel,
        padding="same",
        activation="relu",
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(x)
