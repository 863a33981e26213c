"""What a job may ask of the batch norms of its network."""

from __future__ import annotations

import keras

from clusterseg.errors import ClustersegError, ExitCode


def freeze(model: keras.Model) -> None:
    """Keeps all batch norms as they are: they normalise by their moving statistics in training,
    too, and neither these nor gamma and beta change (Keras' meaning of a layer that is not
    trainable). To be called before the optimizer is built.

    Raises ClustersegError if the network has none.
    """
    for layer in _batch_norms(model, "freeze_batch_norm"):
        layer.trainable = False


def _batch_norms(model: keras.Model, key: str) -> list[keras.layers.BatchNormalization]:
    found = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    if not found:
        raise ClustersegError(
            f"train.{key} is set, but {model.name} has no batch norm",
            code="no-batch-norm",
            help=f"remove train.{key}",
            exit_code=ExitCode.FAILED,
        )
    return found
