"""LmSegNet of Blueoil: 11 convolutions, of one bit a weight and two bits an activation.

Sizes are halved and doubled by moving pixels into channels and back, which costs an FPGA nothing.
2,559,126 parameters with 11 classes, without the batch norms' moving statistics.
"""

from __future__ import annotations

import keras
from keras import layers

from clusterseg.data.normalisation import Normalisation
from clusterseg.errors import ClustersegError
from clusterseg.models.backbones.preprocessing import ZERO_TO_ONE
from clusterseg.models.checks import check_divisible
from clusterseg.models.layers import Tensor, batch_norm
from clusterseg.models.quantise import DepthToSpace, QuantConv2D, SpaceToDepth, TwoBit

_LEVELS = 3  # halvings; the input must be divisible by 2 ** _LEVELS
# Filters and kernel of a convolution; `down` and `up` before one halve and double.
_BODY: tuple[tuple[int, int] | str, ...] = (
    *("down", (16, 1), "down", (64, 3), (64, 3), "down"),
    *((256, 3), (256, 3), (256, 3), (256, 3)),
    *("up", (128, 3), "up", (128, 3), "up", (32, 3)),
)


def build(
    classes: int,
    size: tuple[int, int],
    *,
    quantize: bool = True,
    quantize_first: bool = False,
    quantize_last: bool = False,
    max_value: float = 2.0,
) -> keras.Model:
    """LmSegNet for `size` (height, width), both divisible by 8; see `build_model`.

    `quantize`: weights of one bit (the mean of their absolute values and a sign), activations of
    two (0 to `max_value` in three steps); else floating point and ReLU. The first layer's weights
    are quantised with `quantize_first`, the last one's, and the logits, with `quantize_last`: as
    in the seed, whose logits then take four values only.
    """
    check_divisible("lmsegnet", size, 2**_LEVELS)
    if not max_value > 0:
        raise ClustersegError(
            f"lmsegnet: max_value must be above 0, not {max_value}", code="bad-option"
        )
    image = keras.Input((*size, 3), name="image")
    x: Tensor = image
    number = halved = doubled = 0
    for step in _BODY:
        if isinstance(step, tuple):
            number += 1
            filters, kernel = step
            one_bit = quantize and (number > 1 or quantize_first)
            x = _conv(x, filters, kernel, one_bit, f"conv{number}")
            x = _activation(x, quantize, max_value, f"conv{number}_activation")
        elif step == "down":
            halved += 1
            x = SpaceToDepth(name=f"space_to_depth{halved}")(x)
        else:
            doubled += 1
            x = DepthToSpace(name=f"depth_to_space{doubled}")(x)
    name = f"conv{number + 1}"
    x = _conv(x, classes, 3, quantize and quantize_last, name)
    if quantize and quantize_last:
        x = TwoBit(max_value, name=f"{name}_activation")(x)
    logits = layers.Activation("linear", dtype="float32", name="logits")(x)
    return keras.Model(image, logits, name="lmsegnet")


def normalisation(**options: object) -> Normalisation:
    """Pictures from 0 to 1."""
    return ZERO_TO_ONE


def _conv(x: Tensor, filters: int, kernel: int, one_bit: bool, name: str) -> Tensor:
    x = QuantConv2D(
        filters,
        kernel,
        quantize=one_bit,
        padding="same",
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(x)
    return batch_norm(x, name=f"{name}_bn")


def _activation(x: Tensor, quantize: bool, max_value: float, name: str) -> Tensor:
    return TwoBit(max_value, name=name)(x) if quantize else layers.ReLU(name=name)(x)
