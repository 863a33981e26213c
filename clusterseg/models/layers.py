"""Layers and small compositions that several networks share.

Every function takes the `name` that its layers' names begin with, so that names tell the place
in the network.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf
from keras import layers

Tensor = Any  # a Keras symbolic tensor; Keras exports no useful type


def conv_bn_relu(
    x: Tensor, filters: int, kernel: int, *, stride: int = 1, dilation: int = 1, name: str
) -> Tensor:
    """Convolution without bias, batch norm, ReLU; `same` padding."""
    x = conv(x, filters, kernel, stride=stride, dilation=dilation, name=f"{name}_conv")
    return _bn_relu(x, name)


def conv(
    x: Tensor, filters: int, kernel: int, *, stride: int = 1, dilation: int = 1, name: str
) -> Tensor:
    """Convolution without bias; `same` padding."""
    return layers.Conv2D(
        filters,
        kernel,
        strides=stride,
        dilation_rate=dilation,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )(x)


def depthwise_bn_relu(x: Tensor, *, stride: int = 1, name: str) -> Tensor:
    """3x3 depthwise convolution without bias, batch norm, ReLU; `same` padding."""
    x = layers.DepthwiseConv2D(
        3,
        strides=stride,
        padding="same",
        use_bias=False,
        depthwise_initializer="he_normal",
        name=f"{name}_depthwise",
    )(x)
    return _bn_relu(x, name)


def _bn_relu(x: Tensor, name: str) -> Tensor:
    return layers.ReLU(name=f"{name}_relu")(batch_norm(x, name=f"{name}_bn"))


def batch_norm(x: Tensor, *, name: str, momentum: float = 0.9, epsilon: float = 1e-5) -> Tensor:
    """Batch norm with torch's defaults (momentum .9 in Keras' sense, epsilon 1e-5).

    Keras' own .99 needs some hundred steps before its moving statistics are fit to validate with.
    """
    return BatchNormalization(momentum=momentum, epsilon=epsilon, name=name)(x)


@keras.saving.register_keras_serializable("clusterseg")
class BatchNormalization(layers.BatchNormalization):  # type: ignore[misc]
    """Keras' batch norm over the last axis, whose batch may be that of all ranks.

    It has the name of Keras' class, since Keras' own files of weights tell layers by that.

    `sum_over_ranks`, where it is set, gives the sum of every rank's float32 vector, and in the
    backward pass that of every rank's gradient. Then one vector a layer tells mean and variance:
    number of values, sums and sums of squares of their differences from the moving mean, which is
    the same on all ranks. Without the differences, E[x^2] - E[x]^2 would cancel.
    """

    sum_over_ranks: Callable[[tf.Tensor], tf.Tensor] | None = None

    def _moments(self, inputs: tf.Tensor, mask: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
        if self.sum_over_ranks is None:
            mean, variance = super()._moments(inputs, mask)
            return mean, variance
        middle = tf.stop_gradient(tf.convert_to_tensor(self.moving_mean.value))
        differences = tf.reshape(inputs - middle, [-1, inputs.shape[-1]])
        total = self.sum_over_ranks(
            tf.concat(
                [
                    tf.cast(tf.shape(differences)[:1], tf.float32),
                    tf.reduce_sum(differences, axis=0),
                    tf.reduce_sum(tf.square(differences), axis=0),
                ],
                axis=0,
            )
        )
        mean, square = tf.split(total[1:] / total[0], 2)
        return middle + mean, tf.maximum(square - tf.square(mean), 0.0)


@keras.saving.register_keras_serializable("clusterseg")
class Upsample(layers.Layer):  # type: ignore[misc]
    """Resize to a fixed `size` (height, width), half-pixel centres; `method`: bilinear or nearest.

    `tf.image.resize` computes in float32 whatever comes in; the result has the layer's compute
    dtype, so `dtype="float32"` gives full-precision logits under a mixed policy.
    """

    def __init__(
        self,
        size: tuple[int, int],
        method: Literal["bilinear", "nearest"] = "bilinear",
        **keywords: Any,
    ) -> None:
        super().__init__(**keywords)
        self.size = (int(size[0]), int(size[1]))
        self.method = method

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.image.resize(x, self.size, method=self.method), self.compute_dtype)

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (shape[0], *self.size, shape[3])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "size": self.size, "method": self.method}


@keras.saving.register_keras_serializable("clusterseg")
class Dropout(layers.Layer):  # type: ignore[misc]
    """Dropout whose mask belongs to the picture, not to the batch that it came in.

    The state of its seed generator is (key, first): picture i of the batch is masked by numbers
    drawn from (key, first + i), and the next batch begins behind this one. Whoever sets `first` to
    the place of the batch among those of all ranks gets the same masks however many ranks, and
    however many pieces of a batch, there are. Keras' own draws one mask for the whole batch.

    `always`: it drops outside of training too, in graphs made while that is set (Monte Carlo
    dropout), and batch norms beside it stay in inference.
    """

    always = False

    def __init__(self, rate: float, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.rate = float(rate)
        self.seed_generator = keras.random.SeedGenerator()
        self.supports_masking = True

    def build(self, shape: tuple[int | None, ...]) -> None:
        pass  # it has no weights

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        if not (training or self.always):
            return x
        state = self.seed_generator.state
        key, first = tf.unstack(tf.convert_to_tensor(state.value))
        count = tf.shape(x)[0]
        state.assign(tf.stack([key, first + tf.cast(count, first.dtype)]))
        scale = tf.cast(_drawn(x, key, first) >= self.rate, x.dtype) / (1 - self.rate)
        return x * scale

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate}


def _drawn(x: tf.Tensor, key: tf.Tensor, first: tf.Tensor) -> tf.Tensor:
    """float32 in [0, 1), of the shape of `x`: each picture's own."""

    def of_picture(place: tf.Tensor) -> tf.Tensor:
        # Named: the default algorithm differs between devices.
        seed = tf.stack([key, first + place])
        return tf.random.stateless_uniform(tf.shape(x)[1:], seed, alg="philox")

    if x.shape[0] is None:
        places = tf.range(tf.cast(tf.shape(x)[0], first.dtype))
        return tf.map_fn(of_picture, places, fn_output_signature=tf.float32)
    return tf.stack([of_picture(tf.cast(place, first.dtype)) for place in range(x.shape[0])])


@keras.saving.register_keras_serializable("clusterseg")
class PyramidPool(layers.Layer):  # type: ignore[misc]
    """Adaptive average pooling to `bins` x `bins` cells, for any height and width.

    Cell i covers rows floor(i h / bins) to ceil((i + 1) h / bins), as torch's
    AdaptiveAvgPool2d; where the map has fewer rows than bins, cells repeat rows. Two matrix
    products: no gather, so the gradient is deterministic on every device.
    """

    def __init__(self, bins: int, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.bins = int(bins)

    def build(self, shape: tuple[int | None, ...]) -> None:
        height, width = shape[1], shape[2]
        if height is None or width is None:
            raise ValueError("PyramidPool needs a known height and width")
        self._rows = _averaging_matrix(self.bins, height)
        self._columns = _averaging_matrix(self.bins, width)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        rows = tf.constant(self._rows, x.dtype)
        columns = tf.constant(self._columns, x.dtype)
        return tf.einsum("ih,jw,nhwc->nijc", rows, columns, x)

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (shape[0], self.bins, self.bins, shape[3])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "bins": self.bins}


def _averaging_matrix(bins: int, length: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """float32 [bins, length]; row i averages the cells of bin i."""
    matrix = np.zeros((bins, length), np.float32)
    for i in range(bins):
        start = i * length // bins
        stop = -(-(i + 1) * length // bins)
        matrix[i, start:stop] = 1 / (stop - start)
    return matrix
