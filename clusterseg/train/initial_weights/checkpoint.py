"""Checkpoints of TensorFlow 1, whose names are those of the graph: `resnet_v1_101/conv1/weights`.

TensorFlow itself reads them, and checks the sums of what it reads: of 600 files with wrong
bytes none ended the process, so that they need no trial as those of HDF5 do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from clusterseg.spec.errors import clip
from clusterseg.train.initial_weights.match import Item
from clusterseg.train.initial_weights.source import MAX_TENSORS, Source, bad_weights, first_line


@contextmanager
def open_checkpoint(path: Path, name: str) -> Iterator[Source]:
    """Opens the checkpoint `name` (`tensorflow_checkpoint`); `path` is for messages.

    Raises ClustersegError as `open_source` does.
    """
    import tensorflow as tf  # files of other kinds are read without it

    broken = (tf.errors.OpError, RuntimeError, ValueError, TypeError, LookupError)
    try:
        reader = tf.train.load_checkpoint(name)
        shapes: dict[str, list[int]] = reader.get_variable_to_shape_map()
        kinds: dict[str, Any] = reader.get_variable_to_dtype_map()
    except broken as error:
        raise bad_weights(path, f"is truncated or damaged: {first_line(error)}") from error
    if len(shapes) > MAX_TENSORS:
        raise bad_weights(path, f"holds {len(shapes)} tensors, more than {MAX_TENSORS}")

    def read(tensor: str) -> NDArray[Any]:
        kind = kinds[tensor]
        if not kind.is_floating:
            what = f"holds {clip(tensor)} as {kind.name}, not as floating point"
            raise bad_weights(path, what)
        try:
            numbers: NDArray[Any] = reader.get_tensor(tensor)
        except broken as error:
            raise bad_weights(path, f"is truncated or damaged: {first_line(error)}") from error
        return numbers

    items = tuple(Item(tensor, tuple(shapes[tensor])) for tensor in sorted(shapes))
    yield Source("a TensorFlow checkpoint", items, read)
