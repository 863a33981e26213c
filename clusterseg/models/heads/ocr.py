"""Object-contextual representations (Yuan et al., arXiv 1909.11065, section 3.2)."""

from __future__ import annotations

import keras
import tensorflow as tf
from keras import layers

from clusterseg.models.layers import Dropout, Tensor, conv_bn_relu

FILTERS = 512
_KEYS = 256


def ocr(x: Tensor, regions: Tensor, *, dropout: float, name: str = "ocr") -> Tensor:
    """512 channels: each pixel of `x` (512 channels) beside what the objects look like that it
    resembles. `regions`: logits of classes of the same size, coarsely right."""
    objects = ObjectRegions(name=f"{name}_objects")([regions, x])
    query = _twice(x, f"{name}_query")
    key = _twice(objects, f"{name}_key")
    value = conv_bn_relu(objects, _KEYS, 1, name=f"{name}_value")
    context = ObjectAttention(name=f"{name}_attention")([query, key, value])
    context = conv_bn_relu(context, FILTERS, 1, name=f"{name}_context")
    x = layers.Concatenate(name=f"{name}_concat")([context, x])
    x = conv_bn_relu(x, FILTERS, 1, name=f"{name}_out")
    return Dropout(dropout, name=f"{name}_dropout")(x) if dropout else x


def _twice(x: Tensor, name: str) -> Tensor:
    return conv_bn_relu(conv_bn_relu(x, _KEYS, 1, name=f"{name}_0"), _KEYS, 1, name=f"{name}_1")


@keras.saving.register_keras_serializable("clusterseg")
class ObjectRegions(layers.Layer):  # type: ignore[misc]
    """The mean of the features of each class, [n, classes, 1, c], over the pixels of a map.

    From logits [n, h, w, classes] and features [n, h, w, c]; a pixel weighs its softmax over the
    *pixels*, computed in float32 (equation 8).
    """

    def call(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        logits, features = inputs
        weights = tf.nn.softmax(_flat(tf.cast(logits, tf.float32)), axis=1)
        means = tf.einsum("npk,npc->nkc", tf.cast(weights, features.dtype), _flat(features))
        return means[:, :, tf.newaxis]

    def compute_output_shape(self, shapes: list[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        return (shapes[0][0], shapes[0][3], 1, shapes[1][3])


@keras.saving.register_keras_serializable("clusterseg")
class ObjectAttention(layers.Layer):  # type: ignore[misc]
    """Scaled dot-product attention of pixels to objects.

    Queries [n, h, w, c], keys and values [n, objects, 1, c]; to [n, h, w, c]. The softmax over the
    objects is computed in float32 (equation 4; scaled by 1/sqrt(c), as the authors' code).
    """

    def call(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        query, key, value = inputs
        products = tf.einsum("npc,nkc->npk", _flat(query), key[:, :, 0])
        scale = float(query.shape[3]) ** -0.5
        weights = tf.nn.softmax(tf.cast(products, tf.float32) * scale, axis=2)
        mixed = tf.einsum("npk,nkc->npc", tf.cast(weights, value.dtype), value[:, :, 0])
        return tf.reshape(mixed, [-1, *query.shape[1:3], value.shape[3]])

    def compute_output_shape(self, shapes: list[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        return (*shapes[0][:3], shapes[2][3])


def _flat(x: tf.Tensor) -> tf.Tensor:
    """[n, h, w, c] as [n, h w, c]."""
    return tf.reshape(x, [-1, x.shape[1] * x.shape[2], x.shape[3]])
