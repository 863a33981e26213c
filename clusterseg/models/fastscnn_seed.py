"""Fast-SCNN as the ImageSegmentation seed builds it, which follows kshitizrimal's Keras version.

It differs from the paper in its layers: a bias before every batch norm, separable convolutions
without one between their halves, a pyramid of 2, 4, 6 and 8 cells a side whose branches are 3x3
convolutions of stride 2 beside the input (640 channels), a batch norm behind the classifier, and
maps doubled by the nearest pixel where they are fused and at the end.
1,784,452 parameters with 20 classes, 1,760,892 without the batch norms' moving statistics. Dropout
stands before the last convolution, as in the paper's network; the seed drops logits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import layers

from clusterseg.models.layers import BatchNormalization, Dropout, PyramidPool, Tensor, Upsample

# Expansion, channels, repeats and the first one's stride, as in the paper's table 1.
_BOTTLENECKS = ((6, 64, 3, 2), (6, 96, 3, 2), (6, 128, 3, 1))
_PYRAMID_BINS = (2, 4, 6, 8)


def build_seed_variant(
    classes: int, size: tuple[int, int], channels: Callable[[int], int], dropout: float
) -> keras.Model:
    """The network for any `size`; `channels` scales a channel count.

    The seed pools by windows of a fixed size, which its fixed upsampling then must undo; adaptive
    cells fit every map, and are those windows where the cells divide a 32nd of the input.
    """
    image = keras.Input((*size, 3), name="image")
    x = _conv(image, channels(32), 3, stride=2, name="downsample_0")
    x = _separable(x, channels(48), stride=2, name="downsample_1")
    detail = _separable(x, channels(64), stride=2, name="downsample_2")
    x = detail
    for stage, (expansion, full, repeats, stride) in enumerate(_BOTTLENECKS):
        for i in range(repeats):
            name = f"features_{stage}_{i}"
            x = _bottleneck(x, channels(full), expansion, 1 if i else stride, name)
    context = _pyramid(x)

    detail = _conv(detail, channels(128), 1, relu=False, name="fusion_detail")
    context = Upsample(detail.shape[1:3], "nearest", name="fusion_upsample")(context)
    context = _depthwise(context, name="fusion_context_spatial")
    context = layers.Conv2D(channels(128), 1, name="fusion_context_conv")(context)
    x = layers.Add(name="fusion_add")([detail, context])
    x = _bn(x, name="fusion_bn")
    x = layers.ReLU(name="fusion_relu")(x)

    x = _separable(x, channels(128), name="classifier_0")
    x = _separable(x, channels(128), name="classifier_1")
    if dropout:
        x = Dropout(dropout, name="classifier_dropout")(x)
    x = _conv(x, classes, 1, relu=False, name="classifier_logits")
    logits = Upsample(size, "nearest", dtype="float32", name="logits")(x)
    return keras.Model(image, logits, name="fastscnn")


def _pyramid(x: Tensor) -> Tensor:
    parts = [x]
    for bins in _PYRAMID_BINS:
        name = f"pyramid_{bins}"
        pooled = PyramidPool(bins, name=f"{name}_pool")(x)
        pooled = layers.Conv2D(x.shape[-1], 3, strides=2, padding="same", name=f"{name}_conv")(
            pooled
        )
        parts.append(Upsample(x.shape[1:3], name=f"{name}_upsample")(pooled))
    return layers.Concatenate(name="pyramid_concat")(parts)


def _bottleneck(x: Tensor, filters: int, expansion: int, stride: int, name: str) -> Tensor:
    before = x
    x = _conv(x, expansion * x.shape[-1], 1, name=f"{name}_expand")
    x = _depthwise(x, stride=stride, name=f"{name}_spatial")
    x = _conv(x, filters, 1, relu=False, name=f"{name}_project")
    if stride == 1 and before.shape[-1] == filters:
        x = layers.Add(name=f"{name}_add")([x, before])
    return x


def _conv(
    x: Tensor, filters: int, kernel: int, *, stride: int = 1, relu: bool = True, name: str
) -> Tensor:
    x = layers.Conv2D(filters, kernel, strides=stride, padding="same", name=f"{name}_conv")(x)
    return _bn(x, name=f"{name}_bn", relu=f"{name}_relu" if relu else None)


def _separable(x: Tensor, filters: int, *, stride: int = 1, name: str) -> Tensor:
    x = layers.SeparableConv2D(filters, 3, strides=stride, padding="same", name=f"{name}_conv")(x)
    return _bn(x, name=f"{name}_bn", relu=f"{name}_relu")


def _depthwise(x: Tensor, *, stride: int = 1, name: str) -> Tensor:
    x = layers.DepthwiseConv2D(3, strides=stride, padding="same", name=f"{name}_depthwise")(x)
    return _bn(x, name=f"{name}_bn", relu=f"{name}_relu")


def _bn(x: Tensor, *, name: str, relu: str | None = None) -> Tensor:
    # Keras' epsilon: the seed's own files of weights go with it.
    settings: dict[str, Any] = {"momentum": 0.9, "epsilon": 1e-3}
    x = BatchNormalization(name=name, **settings)(x)
    return x if relu is None else layers.ReLU(name=relu)(x)
