"""What a job may ask of the batch norms of its network."""

from __future__ import annotations

import keras

from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.models.layers import BatchNormalization
from clusterseg.train.communicator import Communicator


def freeze(model: keras.Model) -> None:
    """Keeps all batch norms as they are: they normalise by their moving statistics in training,
    too, and neither these nor gamma and beta change (Keras' meaning of a layer that is not
    trainable). To be called before the optimizer is built.

    Raises ClustersegError if the network has none.
    """
    for layer in _batch_norms(model, "freeze_batch_norm"):
        layer.trainable = False


def synchronise(model: keras.Model, communicator: Communicator) -> None:
    """Makes the batch of every batch norm that of all ranks together; one rank has it already.

    Costs a small reduction a layer, and another one on the way back. To be called before the step
    is built. Raises ClustersegError if the network has none.
    """
    for layer in _batch_norms(model, "sync_batch_norm"):
        if not isinstance(layer, BatchNormalization):
            raise TypeError(f"{layer.path} can't be synchronised: build it with models.layers")
        if communicator.size > 1:
            layer.sum_over_ranks = communicator.sum_with_gradient


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
