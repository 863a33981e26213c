"""One bit a weight and two bits an activation, as Blueoil's networks have them.

Networks train in floating point: the layers' variables are float32 and are quantised on the way
forward; on the way back the quantisers are taken for the identity where they do not saturate
(straight-through estimator: Zhou et al. 2016, DoReFa-Net, arXiv:1606.06160, section 2).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from clusterseg.models.sums import ordered_sum

STEPS = 3  # above zero, that two bits tell


@tf.custom_gradient  # type: ignore[untyped-decorator]
def binary(weights: tf.Tensor) -> tuple[tf.Tensor, Any]:
    """float32 weights to the mean of their absolute values, with the sign of each; 0 counts as
    positive. The gradient goes through as it is."""
    scale = ordered_sum(tf.abs(weights)) / float(max(1, weights.shape.num_elements()))
    return tf.where(weights >= 0, scale, -scale), lambda gradient: gradient


def two_bit(x: tf.Tensor, most: float = 2.0) -> tf.Tensor:
    """float32 to the nearest of 0, 1/3, 2/3 and 3/3 of `most`; halves to the even one.

    The gradient goes through where 0 < x < `most`, and is 0 elsewhere.
    """

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def quantised(x: tf.Tensor) -> tuple[tf.Tensor, Any]:
        steps = tf.round(tf.clip_by_value(x, 0.0, most) * (STEPS / most))

        def backward(gradient: tf.Tensor) -> tf.Tensor:
            return tf.where((x > 0) & (x < most), gradient, tf.zeros_like(gradient))

        return steps * (most / STEPS), backward

    return quantised(x)


@keras.saving.register_keras_serializable("clusterseg")
class QuantConv2D(layers.Conv2D):  # type: ignore[misc]
    """Keras' convolution, whose kernel is `binary` on the way if `quantize`; it has no bias.

    The variable is the float kernel, with Keras' name and shape: weights of either network fit the
    other. It is quantised in float32 whatever the layer computes in.
    """

    def __init__(
        self, filters: int, kernel_size: Any, *, quantize: bool = True, **keywords: Any
    ) -> None:
        # Without Keras' casts of what comes in: the kernel would be bfloat16 before its mean.
        super().__init__(filters, kernel_size, **{**keywords, "use_bias": False, "autocast": False})
        self.quantize = bool(quantize)
        self.constant: np.ndarray[Any, Any] | None = None

    def call(self, x: tf.Tensor) -> tf.Tensor:
        kernel = tf.convert_to_tensor(self.kernel if self.constant is None else self.constant)
        if self.quantize and self.constant is None:
            kernel = binary(kernel)
        return self.convolution_op(
            tf.cast(x, self.compute_dtype), tf.cast(kernel, self.compute_dtype)
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "quantize": self.quantize}


@contextmanager
def constant_kernels(model: keras.Model) -> Iterator[None]:
    """Graphs of `model` that are made inside hold quantised kernels as numbers, not as how they are
    made of the float ones.

    The results are the same bit by bit. For the int8 of TensorFlow Lite: what is computed is no
    weight to its converter (2.21), and gets a zero point that its convolutions refuse.
    """
    found = [one for one in model._flatten_layers() if isinstance(one, QuantConv2D)]
    found = [one for one in found if one.quantize]
    for layer in found:
        layer.constant = binary(tf.convert_to_tensor(layer.kernel)).numpy()
    try:
        yield
    finally:
        for layer in found:
            layer.constant = None


@keras.saving.register_keras_serializable("clusterseg")
class TwoBit(layers.Layer):  # type: ignore[misc]
    """`two_bit` of what comes in, in place of an activation; computed in float32."""

    def __init__(self, most: float = 2.0, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.most = float(most)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return tf.cast(two_bit(tf.cast(x, tf.float32), self.most), self.compute_dtype)

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "most": self.most}


@keras.saving.register_keras_serializable("clusterseg")
class SpaceToDepth(layers.Layer):  # type: ignore[misc]
    """[n, 2h, 2w, c] to [n, h, w, 4c]: each square of 2x2 becomes channels, row by row."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return tf.nn.space_to_depth(x, 2)

    def compute_output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (shape[0], shape[1] // 2, shape[2] // 2, 4 * shape[3])


@keras.saving.register_keras_serializable("clusterseg")
class DepthToSpace(layers.Layer):  # type: ignore[misc]
    """The way back: [n, h, w, 4c] to [n, 2h, 2w, c]."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return tf.nn.depth_to_space(x, 2)

    def compute_output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (shape[0], 2 * shape[1], 2 * shape[2], shape[3] // 4)
