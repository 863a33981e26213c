"""Reads files of weights from outside: names and shapes first, one tensor at a time after that.

A file is data. Nothing in it is run or deserialised (no model configuration, no pickle, no custom
layer), and a tensor is only read once its shape was found to be that of a variable, so that no
file can ask for more memory than the network has.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from clusterseg.errors import lasting
from clusterseg.runs.checkpoint_file import verify
from clusterseg.runs.tensorflow_checkpoint import Incomplete, tensorflow_checkpoint
from clusterseg.spec.errors import clip
from clusterseg.train.initial_weights.checkpoint import open_checkpoint
from clusterseg.train.initial_weights.hdf5 import open_hdf5
from clusterseg.train.initial_weights.match import Item
from clusterseg.train.initial_weights.source import MAX_TENSORS, Source, bad_weights, first_line
from clusterseg.train.initial_weights.trial import survive

_HDF5 = b"\x89HDF\r\n\x1a\n"
_ZIP = b"PK\x03\x04"
_FLOATS = ("F16", "BF16", "F32", "F64")
_KINDS = (
    "known are a checkpoint of clusterseg or another safetensors file, a .weights.h5 of Keras 3, "
    "an .h5 or .hdf5 of Keras 2, and a checkpoint of TensorFlow 1"
)


@contextmanager
def open_source(path: Path) -> Iterator[Source]:
    """Opens a file of weights. Raises ClustersegError, also from within `Source.read`: no such
    file, not one of the known kinds, or damaged; the message names the file."""
    try:
        checkpoint = tensorflow_checkpoint(path)
    except Incomplete as error:
        raise bad_weights(path, error.what, error.help) from error
    except OSError as error:
        raise bad_weights(path, f"cannot be read: {error.strerror or error}") from error
    if checkpoint is not None:
        with open_checkpoint(path, checkpoint) as source:
            yield source
        return
    head = _head(path)
    if head.startswith(_ZIP):
        what = "is an archive (a .keras file, or one of torch)"
        help = "save its weights alone: model.save_weights('x.weights.h5')"
        with lasting():
            raise bad_weights(path, what, help)
    if head == _HDF5:
        survive(path)
        with open_hdf5(path) as source:
            yield source
        return
    with _open_safetensors(path) as source:
        yield source


def _head(path: Path) -> bytes:
    if not path.is_file():
        what = "is no plain file" if path.exists() else "does not exist"
        raise bad_weights(
            path,
            what,
            "set train.initial_weights to a file that every host sees; a relative path starts "
            "where the job was submitted",
        )
    try:
        with path.open("rb") as file:
            return file.read(8)
    except OSError as error:
        raise bad_weights(path, f"cannot be read: {error.strerror or error}") from error


@contextmanager
def _open_safetensors(path: Path) -> Iterator[Source]:
    try:
        file: Any = safe_open(path, framework="numpy")
    except (SafetensorError, OSError) as error:
        what = f"is damaged, or no file of weights: {first_line(error)}"
        raise bad_weights(path, what, _KINDS) from error
    own = "clusterseg" in (file.metadata() or {})
    if own:
        verify(path)  # the library takes flipped bits for numbers
    names = list(file.keys())
    if len(names) > MAX_TENSORS:
        raise bad_weights(path, f"holds {len(names)} tensors, more than {MAX_TENSORS}")
    if own:  # the optimizer's and the generators' belong to another run
        # What was validated: the averages, where there are any.
        averaged = {name.removeprefix("ema/") for name in names if name.startswith("ema/")}
        names = [
            name
            for name in names
            if name.startswith("ema/")
            or (name.startswith("model/") and name.removeprefix("model/") not in averaged)
        ]

    def read(name: str) -> NDArray[Any]:
        kind = file.get_slice(name).get_dtype()
        if kind not in _FLOATS:
            raise bad_weights(path, f"holds {clip(name)} as {kind}, not as floating point")
        try:
            return np.asarray(file.get_tensor(name))
        except (SafetensorError, OSError, ValueError) as error:
            raise bad_weights(path, f"cannot be read: {first_line(error)}") from error

    with file:
        items = tuple(
            Item(
                name,
                tuple(file.get_slice(name).get_shape()),
                path=name.removeprefix("ema/" if own else "")
                .removeprefix("model/")
                .removesuffix(":0"),
            )
            for name in names
        )
        yield Source("a checkpoint" if own else "a safetensors file", items, read)
