"""The computation that goes into a file: raw or normalised pictures in, logits or labels out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.python.framework.convert_to_constants import (  # no public name leads to it
    convert_variables_to_constants_v2,
)

from clusterseg.data.normalisation import Normalisation
from clusterseg.export.network import Network

INPUT = "image"


@dataclass(frozen=True)
class Form:
    """How a file is to be called.

    `batch`: pictures at a time; None: any number. `raw`: the input is uint8 RGB and normalised in
    the graph; else float32, normalised by the caller. `argmax`: the output is int32 labels
    [n, height, width]; else float32 logits [n, height, width, classes].
    """

    batch: int | None = 1
    raw: bool = False
    argmax: bool = False

    @property
    def output(self) -> str:
        """The name of the output."""
        return "labels" if self.argmax else "logits"

    @property
    def dtype(self) -> type[np.generic]:
        """The type of the input."""
        return np.uint8 if self.raw else np.float32


def signature(network: Network, form: Form) -> tf.TensorSpec:
    """Shape and type of the input."""
    return tf.TensorSpec([form.batch, *network.size, 3], form.dtype, name=INPUT)


def function(network: Network, form: Form) -> Any:
    """A tf.function from the input of `form` to its output; variables are not frozen."""

    @tf.function(input_signature=[signature(network, form)])  # type: ignore[untyped-decorator]
    def infer(image: tf.Tensor) -> tf.Tensor:
        if form.raw:
            image = _normalised(image, network.normalisation)
        logits = network.model(image, training=False)
        if form.argmax:
            labels = tf.argmax(logits, axis=-1, output_type=tf.int32)
            return tf.identity(labels, name=form.output)
        return tf.identity(logits, name=form.output)

    return infer


def frozen(network: Network, form: Form) -> Any:
    """A concrete function whose variables are constants.

    TFLite's converter needs it: given the function and the Keras model, version 2.21 writes a
    file without the values, which gives NaN in float and an error on READ_VARIABLE in int8.
    """
    return convert_variables_to_constants_v2(function(network, form).get_concrete_function())


def normalised(pixels: NDArray[np.generic], normalisation: Normalisation) -> NDArray[np.float32]:
    """float32 pictures [..., 3] for the network, of RGB in 0 to 255."""
    factors, offsets = normalisation.linear()
    found = np.asarray(pixels, np.float32) * np.array(factors, np.float32)
    found += np.array(offsets, np.float32)
    return found[..., ::-1] if normalisation.order == "bgr" else found


def _normalised(image: tf.Tensor, normalisation: Normalisation) -> tf.Tensor:
    factors, offsets = normalisation.linear()
    pixels = tf.cast(image, tf.float32) * tf.constant(factors, tf.float32)
    pixels += tf.constant(offsets, tf.float32)
    return tf.reverse(pixels, [-1]) if normalisation.order == "bgr" else pixels
