"""Layers that may have lost their stride (`clusterseg.models.strides`)."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import layers

from clusterseg.models.layers import Tensor
from clusterseg.models.strides import Step, pads


def depthwise_initializer() -> keras.initializers.Initializer:
    """He's for what a filter of a depthwise convolution sees: 9 values, as its fan *out* says.

    By the fan in, Keras counts all channels, and the map comes out so small that the epsilon of
    batch norm (MobileNetV2 and Xception have 1e-3) is more than its variance.
    """
    return keras.initializers.VarianceScaling(2.0, "fan_out", "truncated_normal")


def depthwise(x: Tensor, step: Step, *, name: str, pad_name: str | None = None) -> Tensor:
    """3x3 depthwise convolution without bias, placed as TensorFlow's `SAME` with stride 2."""
    x = _padded(x, step, pad_name or f"{name}_pad")
    return layers.DepthwiseConv2D(
        3,
        strides=step.stride,
        dilation_rate=step.dilation,
        padding="valid",
        use_bias=False,
        depthwise_initializer=depthwise_initializer(),
        name=name,
    )(x)


def max_pool(x: Tensor, step: Step, *, name: str) -> Tensor:
    """3x3 max pooling of stride 2 with `SAME`, or what is left of it without its stride."""
    if step.stride == 2:
        return layers.MaxPooling2D(3, strides=2, padding="same", name=name)(x)
    firsts = [pads(side, step)[0] for side in x.shape[1:3]]
    return ShiftedMaxPool(step.dilation, (-firsts[0], -firsts[1]), name=name)(x)


def _padded(x: Tensor, step: Step, name: str) -> Tensor:
    around = tuple(pads(side, step) for side in x.shape[1:3])
    return layers.ZeroPadding2D(around, name=name)(x)


@keras.saving.register_keras_serializable("clusterseg")
class ShiftedMaxPool(layers.Layer):  # type: ignore[misc]
    """The largest of 3x3 values that are `dilation` apart, the first of them `first` (rows,
    columns) away; the map keeps its size, and places outside of it don't count.

    By maxima of shifted maps: pooling with dilations is missing in TFLite and ONNX, and a padding
    of the smallest number would ruin an int8 calibration.
    """

    def __init__(self, dilation: int, first: tuple[int, int], **keywords: Any) -> None:
        super().__init__(**keywords)
        self.dilation = int(dilation)
        self.first = (int(first[0]), int(first[1]))

    def call(self, x: tf.Tensor) -> tf.Tensor:
        for axis, first in zip((1, 2), self.first, strict=True):
            shifts = [first + tap * self.dilation for tap in range(3)]
            # One of the shifts is 0, so a value from outside may be replaced by one's own.
            one, two, three = (_shifted(x, shift, axis) for shift in shifts)
            x = tf.maximum(tf.maximum(one, two), three)
        return x

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "dilation": self.dilation, "first": self.first}


def _shifted(x: tf.Tensor, shift: int, axis: int) -> tf.Tensor:
    """Each place gets the value `shift` further along; its own where that is outside."""
    side = x.shape[axis]
    kept = side - abs(shift)
    if shift == 0 or kept <= 0:
        return x
    if axis == 2:
        low, high = x[:, :, :-kept], x[:, :, kept:]
        inner = x[:, :, shift:] if shift > 0 else x[:, :, :kept]
    else:
        low, high = x[:, :-kept], x[:, kept:]
        inner = x[:, shift:] if shift > 0 else x[:, :kept]
    return tf.concat([inner, high] if shift > 0 else [low, inner], axis=axis)
