"""Xception (Chollet, arXiv 1610.02357, figure 5), at any output stride.

Layers, their names and batch norms are those of `keras.applications`, but for the padding of the
first two: `same` rather than `valid`, so that an output is ceil(side / output stride) wide and lies
on its picture; DeepLab pads its Xception as well. Keras gives the convolutions beside the blocks no
names of their own (`conv2d_1`, ...); here they are `block2_residual_conv`, ...
"""

from __future__ import annotations

from keras import layers

from clusterseg.models.backbones.features import Features
from clusterseg.models.dilated import depthwise_initializer, max_pool
from clusterseg.models.layers import Tensor, batch_norm, conv
from clusterseg.models.strides import Step, stages

_ENTRY = ((2, 128), (3, 256), (4, 728))  # block, channels
_LOW = 3
_MIDDLE = range(5, 13)


def xception(image: Tensor, output_stride: int) -> Features:
    """256, 728 and 2048 channels of an `image`; `output_stride` 8, 16 or 32."""
    first, *steps, last = stages((2, 2, 2, 2, 2), output_stride)
    x = conv(image, 32, 3, stride=first.stride, name="block1_conv1")
    x = _relu(_bn(x, "block1_conv1_bn"), "block1_conv1_act")
    x = conv(x, 64, 3, name="block1_conv2")
    x = _relu(_bn(x, "block1_conv2_bn"), "block1_conv2_act")
    low = None
    for (block, filters), step in zip(_ENTRY, steps, strict=True):
        inner, x = _pooled(x, (filters, filters), step, block, activated=block == 2)
        if block == _LOW:
            low = inner
    for block in _MIDDLE:
        before = x
        for i in (1, 2, 3):
            x = _relu(x, f"block{block}_sepconv{i}_act")
            x = _separable(x, 728, last.dilation, f"block{block}_sepconv{i}")
        x = layers.Add(name=f"block{block}_add")([before, x])
    middle = x
    _, x = _pooled(x, (728, 1024), last, 13)
    for i, filters in enumerate((1536, 2048), start=1):
        x = _separable(x, filters, last.after, f"block14_sepconv{i}")
        x = _relu(x, f"block14_sepconv{i}_act")
    return Features(low, middle, x)


def _pooled(
    x: Tensor, filters: tuple[int, int], step: Step, block: int, *, activated: bool = False
) -> tuple[Tensor, Tensor]:
    """Two separable convolutions and a pool, beside a 1x1 convolution: before the pool, and all.

    `activated`: the input has had its ReLU.
    """
    name = f"block{block}"
    beside = conv(x, filters[1], 1, stride=step.stride, name=f"{name}_residual_conv")
    beside = _bn(beside, f"{name}_residual_bn")
    for i in (1, 2):
        if i == 2 or not activated:
            x = _relu(x, f"{name}_sepconv{i}_act")
        x = _separable(x, filters[i - 1], step.dilation, f"{name}_sepconv{i}")
    pooled = max_pool(x, step, name=f"{name}_pool")
    return x, layers.Add(name=f"{name}_add")([pooled, beside])


def _separable(x: Tensor, filters: int, dilation: int, name: str) -> Tensor:
    x = layers.SeparableConv2D(
        filters,
        3,
        dilation_rate=dilation,
        padding="same",
        use_bias=False,
        depthwise_initializer=depthwise_initializer(),
        pointwise_initializer="he_normal",
        name=name,
    )(x)
    return _bn(x, f"{name}_bn")


def _bn(x: Tensor, name: str) -> Tensor:
    return batch_norm(x, epsilon=1e-3, name=name)


def _relu(x: Tensor, name: str) -> Tensor:
    return layers.ReLU(name=name)(x)
