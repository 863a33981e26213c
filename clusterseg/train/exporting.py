"""A trained network for an export: the one that `predict` uses, in float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from clusterseg.errors import ClustersegError
from clusterseg.train.inference.source import Source

if TYPE_CHECKING:
    import keras

    from clusterseg.data import Dataset
    from clusterseg.train.inference.classes import Classes


@dataclass(frozen=True)
class Trained:
    """`model` has one output, computes in float32 and is for pictures of `size` (height, width).

    `dataset` is None where the data set is not here: `missing` says why. `note`: why it computes
    on the CPU, though the job trains on an accelerator.
    """

    model: keras.Model
    classes: Classes
    size: tuple[int, int]
    dataset: Dataset | None
    missing: str | None
    note: str | None = None


def load(source: Source, *, size: tuple[int, int] | None, threads: int) -> Trained:
    """Builds the network for `size` (that of the training if None) with the weights of `source`.

    A checkpoint gives its averages, where it has some: what was validated. Raises ClustersegError:
    weights that can't be read or don't fit whole, a size that the network can't take, or numbers
    that nothing tells.
    """
    from clusterseg.data import open_dataset
    from clusterseg.train.inference.device import prepare

    device = prepare(source.accelerator, threads=threads)  # before what imports TensorFlow
    import tensorflow as tf

    from clusterseg.train.inference.network import opened

    # What GPUs make of float32 otherwise is too coarse to compare files with.
    tf.config.experimental.enable_tensor_float_32_execution(False)

    spec = msgspec.structs.replace(source.train, precision="float32")
    network = opened(msgspec.structs.replace(source, train=spec))
    size = size or network.classes.size
    dataset, missing = None, None
    try:
        dataset = open_dataset(spec.data, spec.loss.ignore)
    except ClustersegError as error:
        missing = error.message
    return Trained(network.model(size), network.classes, size, dataset, missing, device.note)
