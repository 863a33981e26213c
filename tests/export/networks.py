"""A small network that was trained for a moment, so that its logits mean something."""

from __future__ import annotations

from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from clusterseg.data.normalisation import IMAGENET
from clusterseg.export.graph import normalised
from clusterseg.export.network import Network
from clusterseg.export.samples import Sample, Samples, drawn
from clusterseg.models import build_model, normalisation_of

SIZE = (64, 96)
NAMES = ("dark", "red", "green", "blue")
COLORS = ((0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255))


def labels_of(pixels: NDArray[np.float32]) -> NDArray[np.int32]:
    """0 where a picture is dark, else 1 + its strongest channel."""
    return np.where(pixels.max(-1) < 110, 0, 1 + pixels.argmax(-1)).astype(np.int32)


def labelled(count: int) -> Samples:
    """Drawn pictures with their labels."""
    plain = drawn(count, size=SIZE)

    def read() -> Iterator[Sample]:
        for pixels, _ in plain:
            yield pixels, labels_of(pixels)

    return Samples("drawn pictures", count, read)


def trained(steps: int = 60) -> Network:
    """Fast-SCNN of a quarter of the channels; it gets some nine of ten pixels right."""
    keras.utils.set_random_seed(0)
    model = build_model("fastscnn", len(NAMES), SIZE, width=0.25, dropout=0.0)
    pairs = list(labelled(4))
    pictures = tf.constant(normalised(np.stack([one for one, _ in pairs]), IMAGENET))
    labels = tf.constant(np.stack([one for _, one in pairs]))
    optimizer = keras.optimizers.Adam(0.01)

    @tf.function
    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            logits = model(pictures, training=True)
            loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
            )
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    for _ in range(steps):
        step()
    return Network("fastscnn", model, IMAGENET, NAMES, COLORS, SIZE, options={"width": 0.25})


def quantised() -> Network:
    """LmSegNet with batch norms that have seen pictures, so that all steps of all layers occur."""
    keras.utils.set_random_seed(1)
    model = build_model("lmsegnet", len(NAMES), SIZE)
    how = normalisation_of("lmsegnet", {})
    generator = np.random.default_rng(1)
    for variable in model.trainable_variables:
        if variable.name == "beta":
            variable.assign(generator.normal(0, 0.3, variable.shape))
    pictures = tf.constant(normalised(np.stack([pixels for pixels, _ in labelled(4)]), how))
    step = tf.function(lambda: model(pictures, training=True))
    for _ in range(30):
        step()
    return Network("lmsegnet", model, how, NAMES, COLORS, SIZE)
