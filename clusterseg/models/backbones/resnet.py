"""ResNet-50 and -101 (He et al., arXiv 1512.03385, table 1) as Keras has them.

A block strides in the first 1x1 convolution of its first unit. (TF-slim strides in the 3x3
convolution of the *last* unit: `resnet_slim`. Weights of one are of no use to the other.) Layers,
names and batch norms are those of `keras.applications`, whose convolutions have a bias as well;
batch norm swallows it, and `clusterseg.train.initial_weights` takes it along.
"""

from __future__ import annotations

from typing import NamedTuple

from keras import layers

from clusterseg.models.layers import Tensor, batch_norm
from clusterseg.models.strides import Step, stages

UNITS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


class Features(NamedTuple):
    """The ends of the four blocks: 256, 512, 1024 and 2048 channels."""

    conv2: Tensor
    conv3: Tensor
    conv4: Tensor
    conv5: Tensor


def resnet(image: Tensor, depth: int, output_stride: int) -> Features:
    """The maps of an `image` by a net of `depth` 50 or 101; `output_stride` 8, 16 or 32."""
    _, _, *steps = stages((2, 2, 1, 2, 2, 2), output_stride)
    x = layers.ZeroPadding2D(3, name="conv1_pad")(image)
    x = _conv(x, 64, 7, "conv1", stride=2, padding="valid")
    x = layers.ReLU(name="conv1_relu")(x)
    x = layers.ZeroPadding2D(1, name="pool1_pad")(x)
    x = layers.MaxPooling2D(3, strides=2, name="pool1_pool")(x)
    ends = []
    for block, (units, step) in enumerate(zip(UNITS[depth], steps, strict=True), start=2):
        for unit in range(1, units + 1):
            x = _unit(x, 32 << (block - 1), step, f"conv{block}_block{unit}", first=unit == 1)
        ends.append(x)
    return Features(*ends)


def _unit(x: Tensor, filters: int, step: Step, name: str, *, first: bool) -> Tensor:
    """A bottleneck. Only 1x1 convolutions stride, so that without strides nothing shifts."""
    stride = step.stride if first else 1
    beside = _conv(x, 4 * filters, 1, f"{name}_0", stride=stride) if first else x
    x = layers.ReLU(name=f"{name}_1_relu")(_conv(x, filters, 1, f"{name}_1", stride=stride))
    x = _conv(x, filters, 3, f"{name}_2", dilation=step.after)
    x = layers.ReLU(name=f"{name}_2_relu")(x)
    x = _conv(x, 4 * filters, 1, f"{name}_3")
    x = layers.Add(name=f"{name}_add")([beside, x])
    return layers.ReLU(name=f"{name}_out")(x)


def _conv(
    x: Tensor,
    filters: int,
    kernel: int,
    name: str,
    *,
    stride: int = 1,
    dilation: int = 1,
    padding: str = "same",
) -> Tensor:
    x = layers.Conv2D(
        filters,
        kernel,
        strides=stride,
        dilation_rate=dilation,
        padding=padding,
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(x)
    return batch_norm(x, epsilon=1.001e-5, name=f"{name}_bn")
