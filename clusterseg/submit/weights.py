"""Looks at the file of `train.initial_weights` before a job is submitted that starts from it.

Its beginning and its size alone, by the standard library: whether it is there, of a kind that the
ranks read, and whole. What its tensors fit, and whether they are damaged, only the ranks see, who
build the network.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from clusterseg.errors import ClustersegError
from clusterseg.plan.model import Plan
from clusterseg.runs.checkpoint_file import CheckpointError, read_layout
from clusterseg.runs.checkpoint_layout import MAX_HEADER
from clusterseg.runs.tensorflow_checkpoint import Incomplete, tensorflow_checkpoint
from clusterseg.submit.seen import path_of_ranks, run_here

_KEY = "train.initial_weights"
_HDF5 = b"\x89HDF\r\n\x1a\n"
_SUPERBLOCK = 48  # bytes; the smallest with 8-byte addresses, and no file ends with it
_ZIP = b"PK\x03\x04"
_KINDS = (
    "known are a checkpoint of clusterseg or another safetensors file, a .weights.h5 of Keras 3, "
    "an .h5 or .hdf5 of Keras 2, and a checkpoint of TensorFlow 1"
)

_AGAIN = "copy or write it again, whole"


def look_at_weights(plan: Plan) -> Sequence[str]:
    """Warnings about the file that `plan` starts from; none if it looks right, or there is none.

    Raises ClustersegError for one that is seen and can't be used, and for one that is not there,
    or can't be opened, if the ranks run here.
    """
    train = plan.spec.train
    if train is None or train.initial_weights is None:
        return ()
    path = path_of_ranks(plan, train.initial_weights)
    try:
        if tensorflow_checkpoint(path) is not None:
            return ()
        if path.exists() and not path.is_file():
            raise _error(path, "is no plain file", _KINDS)
        with path.open("rb") as file:
            _check(path, file)
    except Incomplete as error:
        raise _error(path, error.what, error.help) from None
    except OSError as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        what = "does not exist" if missing else f"can't be read: {error.strerror}"
        if run_here(plan):
            help = "a relative path starts where the job is submitted"
            raise _error(path, what, help) from None
        return (
            f"{_KEY}: {path} {what} on this machine, so that it was not looked at; rank 0 reads "
            "it, and ends the run if it is not on that host",
        )
    return ()


def _check(path: Path, file: BinaryIO) -> None:
    size = os.fstat(file.fileno()).st_size
    head = file.read(8)
    if size == 0:
        raise _error(path, "is empty", _KINDS)
    if head.startswith(_ZIP):
        raise _error(
            path,
            "is an archive (a .keras file, or one of torch)",
            "save its weights alone: model.save_weights('x.weights.h5')",
        )
    if head == _HDF5:
        _check_hdf5(path, file.read(96), size)
    else:
        _check_safetensors(path, head, file, size)


def _check_hdf5(path: Path, superblock: bytes, size: int) -> None:
    """The end of the file by its superblock: HDF5 file format specification 3.0, section II.A.

    The two old versions and the two new ones have it in different places. What is none of these is
    left to the library.
    """
    if size < _SUPERBLOCK:
        raise _error(path, f"is truncated: {size} bytes", _AGAIN)
    version = superblock[0]
    if version in (0, 1):
        width, place = superblock[5], 16 + 4 * version
    elif version in (2, 3):
        width, place = superblock[1], 4
    else:
        return
    if width not in (2, 4, 8):
        return
    place += 2 * width  # behind two other addresses
    end = int.from_bytes(superblock[place : place + width], "little")
    if size < end:
        raise _error(path, f"is truncated: {size} bytes of {end}", _AGAIN)


def _check_safetensors(path: Path, head: bytes, file: BinaryIO, size: int) -> None:
    """The header against the file's size (https://huggingface.co/docs/safetensors, "Format")."""
    length = int.from_bytes(head, "little")
    if len(head) < 8 or not 2 <= length <= MAX_HEADER:
        raise _error(path, "is no file of weights, or truncated", _KINDS)
    text = file.read(length)
    if len(text) < length:
        if text.startswith(b"{"):
            raise _error(path, f"is truncated: {size} bytes, its header alone has {length}", _AGAIN)
        raise _error(path, "is no file of weights, or truncated", _KINDS)
    try:
        entries = json.loads(text)
        own = "clusterseg" in (entries.pop("__metadata__", None) or {})
        ends = [int(entry["data_offsets"][1]) for entry in entries.values()]
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise _error(path, "is no file of weights, or its header is damaged", _KINDS) from None
    if own:
        try:
            read_layout(path)
        except CheckpointError as error:
            raise _error(path, error.message.removeprefix(path.name).strip(), _AGAIN) from None
    whole = 8 + length + max(ends, default=0)
    if size < whole:
        raise _error(path, f"is truncated: {size} bytes of {whole}", _AGAIN)


def _error(path: Path, what: str, help: str) -> ClustersegError:
    return ClustersegError(f"{_KEY}: {path} {what}", code="initial-weights", help=help)
