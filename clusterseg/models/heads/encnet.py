"""Context encoding (Zhang et al., arXiv 1803.08904, section 3).

The paper's extra loss on which classes a picture holds (SE-loss) is not part of this: outputs of a
model are logits of pixels. The encoding learns through the pixels alone.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import layers

from clusterseg.models.layers import Dropout, Tensor, batch_norm, conv_bn_relu

_FILTERS = 512
_CODEWORDS = 32


def encnet(x: Tensor, *, dropout: float, name: str = "encnet") -> Tensor:
    """512 channels, each scaled by what the whole map looks like."""
    x = conv_bn_relu(x, _FILTERS, 3, name=f"{name}_in")
    residuals = conv_bn_relu(x, _FILTERS, 1, name=f"{name}_encoding_in")
    residuals = Encoding(_CODEWORDS, name=f"{name}_encoding")(residuals)
    residuals = batch_norm(residuals, name=f"{name}_encoding_bn")  # a channel is a codeword
    residuals = layers.ReLU(name=f"{name}_encoding_relu")(residuals)
    residuals = layers.Permute((2, 1), name=f"{name}_encoding_permute")(residuals)
    context = layers.GlobalAveragePooling1D(name=f"{name}_context")(residuals)
    scales = layers.Dense(_FILTERS, activation="sigmoid", name=f"{name}_scales")(context)
    scales = layers.Reshape((1, 1, _FILTERS), name=f"{name}_scales_reshape")(scales)
    scaled = layers.Multiply(name=f"{name}_scaled")([x, scales])
    x = layers.Add(name=f"{name}_add")([x, scaled])
    x = layers.ReLU(name=f"{name}_relu")(x)
    return Dropout(dropout, name=f"{name}_dropout")(x) if dropout else x


@keras.saving.register_keras_serializable("clusterseg")
class Encoding(layers.Layer):  # type: ignore[misc]
    """What the map [n, h, w, c] has beyond each of `codewords` learned vectors: [n, c, codewords].

    Pixel x_i belongs to codeword d_k with the weight softmax_k(s_k |x_i - d_k|^2), and residual k
    is the sum of weight times x_i - d_k (Deep TEN, arXiv 1612.02844, equations 2 and 3; the
    smoothing factors are stored with their sign, begin in [-1, 0], as theirs). In float32.
    """

    def __init__(self, codewords: int, **keywords: Any) -> None:
        super().__init__(autocast=False, **keywords)
        self.codewords = int(codewords)

    def build(self, shape: tuple[int | None, ...]) -> None:
        channels = shape[-1]
        if channels is None:
            raise ValueError("Encoding needs a known number of channels")
        reach = float((self.codewords * channels) ** -0.5)
        self.words = self.add_weight(
            shape=(self.codewords, channels),
            initializer=keras.initializers.RandomUniform(-reach, reach),
            name="codewords",
        )
        self.smoothing = self.add_weight(
            shape=(self.codewords,),
            initializer=keras.initializers.RandomUniform(-1.0, 0.0),
            name="smoothing",
        )

    def call(self, x: tf.Tensor) -> tf.Tensor:
        words = tf.convert_to_tensor(self.words.value)
        pixels = tf.reshape(tf.cast(x, tf.float32), [-1, x.shape[1] * x.shape[2], x.shape[3]])
        # |x - d|^2 without a tensor of n x pixels x codewords x channels.
        squares = tf.reduce_sum(tf.square(pixels), axis=2, keepdims=True)
        products = tf.einsum("npc,kc->npk", pixels, words)
        distances = squares - 2 * products + tf.reduce_sum(tf.square(words), axis=1)
        weights = tf.nn.softmax(tf.convert_to_tensor(self.smoothing.value) * distances, axis=2)
        sums = tf.einsum("npk,npc->nck", weights, pixels)
        totals = tf.reduce_sum(weights, axis=1)[:, tf.newaxis]
        return tf.cast(sums - totals * tf.transpose(words), self.compute_dtype)

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (shape[0], shape[3], self.codewords)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "codewords": self.codewords}
