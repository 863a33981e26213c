"""ResNet-101 as TF-slim has it, and the `beta` variant of research/deeplab with three 3x3
convolutions at its beginning in place of one of 7x7.

A block strides in the 3x3 convolution of its *last* unit, with explicit symmetric padding, and the
units of the last block have rates of their own (`multi_grid`; Chen et al., arXiv 1706.05587,
section 3.2). Layers are named after TF-slim's scopes, and not as Keras': the same weights in a net
that strides elsewhere are another net.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from keras import layers

from clusterseg.models.layers import Tensor, batch_norm
from clusterseg.models.strides import Step, stages

UNITS = (3, 4, 23, 3)
_BLOCK_STRIDES = (2, 2, 2, 1)


class Features(NamedTuple):
    """The ends of the third and the fourth block, both of the output stride (with one of 32, too):
    1024 and 2048 channels."""

    block3: Tensor
    block4: Tensor


def resnet_slim(
    image: Tensor,
    output_stride: int,
    *,
    beta: bool,
    multi_grid: Sequence[int] = (1, 1, 1),
    units: Sequence[int] = UNITS,
) -> Features:
    """The maps of an `image`; `output_stride` 8, 16 or 32; `multi_grid`: a rate for each unit of
    the last block, which its dilation is multiplied by."""
    rates = [1] * sum(units[:-1]) + list(multi_grid)
    strides = []
    for count, stride in zip(units, _BLOCK_STRIDES, strict=True):
        strides += [1] * (count - 1) + [stride]
    _, _, *steps = stages((2, 2, *strides), output_stride)

    x = image
    if beta:
        for i, filters in enumerate((64, 64, 128), start=1):
            x = _conv_relu(x, filters, 3, f"conv1_{i}", stride=2 if i == 1 else 1)
    else:
        x = _conv_relu(x, 64, 7, "conv1", stride=2)
    x = layers.MaxPooling2D(3, strides=2, padding="same", name="pool1")(x)

    ends = []
    rate_of, step_of = iter(rates), iter(steps)
    for block, count in enumerate(units, start=1):
        for unit in range(1, count + 1):
            name = f"block{block}_unit_{unit}"
            x = _unit(x, 32 << block, next(step_of), next(rate_of), name)
        ends.append(x)
    return Features(ends[2], ends[3])


def _unit(x: Tensor, filters: int, step: Step, rate: int, name: str) -> Tensor:
    """A bottleneck."""
    if x.shape[-1] != 4 * filters:
        beside = _conv(x, 4 * filters, 1, f"{name}_shortcut", stride=step.stride)
    elif step.stride > 1:
        beside = layers.MaxPooling2D(1, strides=step.stride, name=f"{name}_shortcut")(x)
    else:
        beside = x
    x = _conv_relu(x, filters, 1, f"{name}_conv1")
    x = _conv_relu(
        x, filters, 3, f"{name}_conv2", stride=step.stride, dilation=step.dilation * rate
    )
    x = _conv(x, 4 * filters, 1, f"{name}_conv3")
    x = layers.Add(name=f"{name}_add")([beside, x])
    return layers.ReLU(name=f"{name}_relu")(x)


def _conv_relu(
    x: Tensor, filters: int, kernel: int, name: str, *, stride: int = 1, dilation: int = 1
) -> Tensor:
    x = _conv(x, filters, kernel, name, stride=stride, dilation=dilation)
    return layers.ReLU(name=f"{name}_relu")(x)


def _conv(
    x: Tensor, filters: int, kernel: int, name: str, *, stride: int = 1, dilation: int = 1
) -> Tensor:
    """Symmetrically padded, also with a stride, so that nothing shifts where the stride is left
    out (slim's `conv2d_same`)."""
    explicit = stride > 1 and kernel > 1
    if explicit:  # strides go without dilations
        x = layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x)
    x = layers.Conv2D(
        filters,
        kernel,
        strides=stride,
        dilation_rate=dilation,
        padding="valid" if explicit else "same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )(x)
    return batch_norm(x, name=f"{name}_bn")
