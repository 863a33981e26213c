"""MobileNetV2 (Sandler et al., arXiv 1801.04381, table 2), at any output stride.

Layers, their names, their placing and batch norms are those of `keras.applications`.
"""

from __future__ import annotations

from keras import layers

from clusterseg.models.backbones.features import Features
from clusterseg.models.dilated import depthwise, depthwise_initializer
from clusterseg.models.layers import Tensor, batch_norm, conv
from clusterseg.models.strides import Step, stages

# Channels, blocks, stride of the first block; all but the first expand by 6.
_GROUPS = ((16, 1, 1), (24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))
_STRIDES = tuple(
    stride if block == 0 else 1 for _, blocks, stride in _GROUPS for block in range(blocks)
)
_LOW = 3  # the block whose expansion is the last at a stride of 4
_MIDDLE = 12  # the last block at a stride of 16
_OUT = 1280


def mobilenetv2(image: Tensor, output_stride: int) -> Features:
    """144, 96 and 1280 channels of an `image`; `output_stride` 8, 16 or 32."""
    first, *steps = stages((2, *_STRIDES), output_stride)
    x = _bn(conv(image, 32, 3, stride=first.stride, name="Conv1"), "bn_Conv1")
    x = _relu6(x, "Conv1_relu")
    low = middle = None
    channels = [group[0] for group in _GROUPS for _ in range(group[1])]
    for block, (filters, step) in enumerate(zip(channels, steps, strict=True)):
        expanded, x = _block(x, filters, step, block)
        if block == _LOW:
            low = expanded
        if block == _MIDDLE:
            middle = x
    x = _bn(conv(x, _OUT, 1, name="Conv_1"), "Conv_1_bn")
    return Features(low, middle, _relu6(x, "out_relu"))


def _block(x: Tensor, filters: int, step: Step, block: int) -> tuple[Tensor, Tensor]:
    """Inverted residual, linear at its end: what it expands its input to, and its output."""
    before = x
    name = f"block_{block}" if block else "expanded_conv"
    if block:
        x = _bn(conv(x, 6 * x.shape[-1], 1, name=f"{name}_expand"), f"{name}_expand_BN")
        x = _relu6(x, f"{name}_expand_relu")
    expanded = x
    if _STRIDES[block] == 2:
        x = depthwise(x, step, name=f"{name}_depthwise", pad_name=f"{name}_pad")
    else:
        x = layers.DepthwiseConv2D(
            3,
            dilation_rate=step.dilation,
            padding="same",
            use_bias=False,
            depthwise_initializer=depthwise_initializer(),
            name=f"{name}_depthwise",
        )(x)
    x = _relu6(_bn(x, f"{name}_depthwise_BN"), f"{name}_depthwise_relu")
    x = _bn(conv(x, filters, 1, name=f"{name}_project"), f"{name}_project_BN")
    if before.shape[-1] == filters:
        x = layers.Add(name=f"{name}_add")([before, x])
    return expanded, x


def _bn(x: Tensor, name: str) -> Tensor:
    return batch_norm(x, epsilon=1e-3, name=name)


def _relu6(x: Tensor, name: str) -> Tensor:
    return layers.ReLU(6.0, name=name)(x)
