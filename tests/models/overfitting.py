"""A network that can learn remembers two noisy pictures, in its moving statistics too."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from clusterseg.models import auxiliary_weights, build_model, main_output
from tests.models.settling import settle


def remembered(
    name: str, options: dict[str, Any], *, steps: int, rate: float, settled: bool = False
) -> float:
    """The share of the pixels that are right after `steps` of Adam, batch norm at rest.

    `settled`: once the moving statistics are those of the last weights. For deep networks; more
    steps would do as well, and cost far more.
    """
    keras.utils.set_random_seed(1)
    random = np.random.default_rng(3)
    labels = np.zeros((2, 48, 64), np.int32)
    labels[0, 16:32], labels[0, 32:] = 1, 2
    labels[1, :, 32:] = 3
    colors = random.normal(size=(4, 3))
    images = (colors[labels] + 0.3 * random.normal(size=(2, 48, 64, 3))).astype(np.float32)

    model = build_model(name, 4, (48, 64), **options)
    weights = (1.0, *auxiliary_weights(name))
    optimizer = keras.optimizers.Adam(rate)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step() -> None:
        with tf.GradientTape() as tape:
            outputs = model(images, training=True)
            outputs = outputs if isinstance(outputs, list) else [outputs]
            loss = 0.0
            for weight, logits in zip(weights, outputs, strict=False):
                loss += weight * tf.reduce_mean(
                    tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
                )
        gradients = tape.gradient(loss, model.trainable_variables)
        missing = [
            variable.path
            for variable, gradient in zip(model.trainable_variables, gradients, strict=True)
            if gradient is None
        ]
        assert not missing, f"no gradient reaches {missing}"
        optimizer.apply(gradients, model.trainable_variables)

    @tf.function
    def see() -> None:
        model(images, training=True)

    def right() -> float:
        predictions = np.argmax(main_output(model)(images, training=False), axis=-1)
        return float((predictions == labels).mean())

    assert right() < 0.9
    for _ in range(steps):
        step()
    if settled:
        settle(model, see)
    return right()
