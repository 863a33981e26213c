"""SavedModel and .keras: for programs that have TensorFlow."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from clusterseg.export.graph import INPUT, Form, function
from clusterseg.export.network import Network


def save_saved_model(network: Network, form: Form, folder: Path) -> None:
    """Writes the folder of a SavedModel with one signature, `serving_default`.

    Whoever loads it needs TensorFlow, and nothing of clusterseg.
    """
    module = tf.Module()
    module.weights = [variable.value for variable in network.model.variables]
    infer = function(network, form)
    module.infer = infer

    def named(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return {form.output: infer(image)}

    spec = infer.input_signature[0]
    signature = tf.function(named).get_concrete_function(**{INPUT: spec})
    tf.saved_model.save(module, str(folder), signatures={"serving_default": signature})


def save_keras(network: Network, path: Path) -> None:
    """Writes one .keras file: logits from normalised pictures, any number at a time.

    It names layers of clusterseg: `clusterseg.models.saved.load_saved` loads it.
    """
    network.model.save(path)
