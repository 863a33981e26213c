"""Weights in HDF5: the `.weights.h5` of Keras 3, and the `.h5` and `.hdf5` of Keras 2.

HDF5 can do much that a file of weights needs not: links to other files, tensors stored in other
files, filters that are shared libraries, chunks far larger than what they hold. All of that is
refused. Of a whole model the weights alone are read, never its configuration.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from clusterseg.errors import ClustersegError
from clusterseg.spec.errors import clip
from clusterseg.train.initial_weights.match import Item, Member
from clusterseg.train.initial_weights.source import MAX_TENSORS, Source, bad_weights, first_line

_MAX_OBJECTS = 10 * MAX_TENSORS
_MAX_DEPTH = 32
_MAX_NAMES = 1 << 20  # bytes of one attribute; Keras cuts its own at 64512
_MAX_CHUNK = 64 << 20  # bytes; h5py's own are below 1 MiB
_FILTERS = (h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32)
_COUNTED = re.compile(r"(.+?)(?:_([0-9]{1,9}))?")


@contextmanager
def open_hdf5(path: Path) -> Iterator[Source]:
    """Opens a file of Keras; raises ClustersegError as `open_source` does."""
    with _understood(path):
        # Locks are no help to a reader of a finished file, and some file systems have none.
        file = h5py.File(path, "r", locking=False)
    with file:
        with _understood(path):
            root = _group(file, "model_weights") if "model_weights" in file else file
            if _has_names(root, "layer_names"):
                kind, found = "a Keras 2 file", _keras_2(root)
            else:
                kind, found = "a Keras 3 file", _keras_3(file)
            datasets = {item.name: dataset for item, dataset in found}
        if len(datasets) != len(found):
            raise bad_weights(path, "names two tensors alike")
        if not found:
            raise bad_weights(path, "holds no weights of Keras")

        def read(name: str) -> NDArray[Any]:
            with _understood(path):
                return _read(datasets[name])

        yield Source(kind, tuple(item for item, _ in found), read)


class _Refused(Exception):
    """What is in the file and should not be."""


@contextmanager
def _understood(path: Path) -> Iterator[None]:
    """Every way in which h5py says that a file is broken, as one error that names it."""
    try:
        yield
    except _Refused as error:
        raise bad_weights(path, f"is refused: {error}") from error
    except ClustersegError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise bad_weights(path, f"is truncated or damaged: {first_line(error)}") from error


def _keras_3(file: h5py.File) -> list[tuple[Item, h5py.Dataset]]:
    """Every dataset of a group `vars`; it stands in the group of its layer.

    The layer's group has the name of its class with a counter, whatever the layer is called; newer
    versions write its own name beside (saving_lib, `_save_state` and `_save_container_state`).
    """
    found: list[tuple[Item, h5py.Dataset]] = []
    seen = 0
    waiting: list[tuple[str, h5py.Group]] = [("", file)]
    while waiting:
        where, group = waiting.pop()
        if where.count("/") >= _MAX_DEPTH:
            raise _Refused(f"its groups are nested deeper than {_MAX_DEPTH}")
        for name in group:
            seen += 1
            if seen > _MAX_OBJECTS:
                raise _Refused(f"it holds more than {_MAX_OBJECTS} objects")
            # The optimizer belongs to another run, and generators are seeded at every step.
            if name == "seed_generator" or (not where and name == "optimizer"):
                continue
            below = _child(group, name)
            if not isinstance(below, h5py.Group):
                continue
            if name == "vars":
                found += _layer(where, below)
                _limit(found)
            else:
                waiting.append((f"{where}/{name}".lstrip("/"), below))
    return sorted(found, key=lambda pair: pair[0].name)


def _layer(where: str, group: h5py.Group) -> list[tuple[Item, h5py.Dataset]]:
    count = len(group)
    if count > MAX_TENSORS:
        raise _Refused(f"a layer has {count} tensors")
    own = _names(group, "name")[0] if "name" in group.attrs else None
    place = _counted(where.removeprefix("layers/")) if where.startswith("layers/") else None
    found = []
    for index in range(count):
        dataset = _child(group, str(index)) if str(index) in group else None
        if not isinstance(dataset, h5py.Dataset):
            continue  # a layer that names its tensors itself: not one of ours
        known = f" ({own})" if own else ""
        item = Item(
            f"{where}/{index}{known}".lstrip("/"),
            _shape(dataset),
            own=Member(own, index, count) if own else None,
            place=Member(place, index, count) if place else None,
        )
        found.append((item, dataset))
    return found


def _counted(name: str) -> str:
    """`conv2d_3` as `conv2d#3`, `conv2d` as `conv2d#0`."""
    known = _COUNTED.fullmatch(name)
    return f"{known[1]}#{int(known[2] or 0)}" if known else name


def _keras_2(root: h5py.Group) -> list[tuple[Item, h5py.Dataset]]:
    """The tensors in the order of the file's `layer_names` and of each layer's `weight_names`.

    A weight's name is the path of its variable, with `:0`. A model that is a layer of another has
    one group for the tensors of all its layers, so the layer is told by that path. Automatic
    names count from anywhere (`conv2d_17`): the number of a layer is that of its turn.
    """
    weights: list[tuple[str, str, h5py.Dataset]] = []
    for layer in _names(root, "layer_names"):
        group = _group(root, layer)
        for name in _names(group, "weight_names"):
            dataset = _child_at(group, name)
            if not isinstance(dataset, h5py.Dataset):
                raise _Refused(f"{clip(name)} is no tensor")
            path = name.strip("/").removesuffix(":0")
            weights.append((path.rpartition("/")[0] or layer, path, dataset))
            _limit(weights)
    sizes = Counter(layer for layer, _, _ in weights)
    turns: Counter[str] = Counter()
    places: dict[str, str] = {}
    for layer in sizes:  # in their order
        kind = _counted(layer.rpartition("/")[2]).partition("#")[0]
        places[layer] = f"{kind}#{turns[kind]}"
        turns[kind] += 1
    done: Counter[str] = Counter()
    found = []
    for layer, path, dataset in weights:
        index, of = done[layer], sizes[layer]
        done[layer] += 1
        item = Item(
            path,
            _shape(dataset),
            path=path,
            own=Member(layer.rpartition("/")[2], index, of),
            place=Member(places[layer], index, of),
        )
        found.append((item, dataset))
    return found


def _limit(found: list[Any]) -> None:
    if len(found) > MAX_TENSORS:
        raise _Refused(f"it holds more than {MAX_TENSORS} tensors")


def _read(dataset: h5py.Dataset) -> NDArray[Any]:
    """The numbers of a dataset whose shape is known to be right; bfloat16 as float32.

    HDF5 gives zeros for what was never written: such a dataset is refused.
    """
    name = clip(str(dataset.name))
    if dataset.external or dataset.is_virtual:
        raise _Refused(f"{name} is stored in other files")
    settings = dataset.id.get_create_plist()
    filters = [settings.get_filter(number)[0] for number in range(settings.get_nfilters())]
    if not set(filters) <= set(_FILTERS):
        raise _Refused(f"{name} is stored through filter {max(filters)}, which is not known here")
    bfloat16 = dataset.dtype.kind == "V" and dataset.dtype.itemsize == 2
    if dataset.dtype.kind != "f" and not bfloat16:
        raise _Refused(f"{name} is of type {dataset.dtype}, not floating point")
    if dataset.chunks is None:
        whole = dataset.id.get_storage_size() >= dataset.nbytes
    else:
        if math.prod(dataset.chunks) * dataset.dtype.itemsize > _MAX_CHUNK:
            raise _Refused(f"{name} has chunks of {list(dataset.chunks)}")
        pieces = [
            -(-side // chunk) for side, chunk in zip(dataset.shape, dataset.chunks, strict=True)
        ]
        whole = dataset.id.get_num_chunks() == math.prod(pieces)
    if not whole:
        raise _Refused(f"{name} declares {list(dataset.shape)}, and holds less")
    numbers = np.asarray(dataset[()])
    if bfloat16:  # its upper half of a float32; h5py knows no such type
        return (numbers.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return numbers


def _shape(dataset: h5py.Dataset) -> tuple[int, ...]:
    if dataset.shape is None:
        raise _Refused(f"{clip(str(dataset.name))} has no shape")
    return tuple(int(side) for side in dataset.shape)


def _group(parent: h5py.Group, path: str) -> h5py.Group:
    group = _child_at(parent, path)
    if not isinstance(group, h5py.Group):
        raise _Refused(f"{clip(path)} is no group")
    return group


def _child_at(parent: h5py.Group, path: str) -> Any:
    """What stands at a path below a group, every link on the way looked at."""
    found: Any = parent
    for name in path.strip("/").split("/"):
        if not isinstance(found, h5py.Group):
            raise _Refused(f"{clip(path)} leads through something that is no group")
        found = _child(found, name)
    return found


def _child(group: h5py.Group, name: str) -> Any:
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise _Refused(f"{clip(name)} is a link to another place")
    return group[name]


def _has_names(group: h5py.Group, name: str) -> bool:
    return name in group.attrs or f"{name}0" in group.attrs


def _names(group: h5py.Group, name: str) -> list[str]:
    """An attribute that is a text or a list of texts; Keras cuts long lists into `name0`, …"""
    if name in group.attrs:
        return _texts(group, name)
    parts: list[list[str]] = []
    while f"{name}{len(parts)}" in group.attrs:
        parts.append(_texts(group, f"{name}{len(parts)}"))
    return [text for part in parts for text in part]


def _texts(group: h5py.Group, name: str) -> list[str]:
    attribute = group.attrs.get_id(name)
    if attribute.shape == (0,):
        return []  # of a layer without weights; numpy writes an empty list as numbers
    kind = attribute.dtype.kind
    if len(attribute.shape) > 1 or kind not in "SO" or attribute.get_storage_size() > _MAX_NAMES:
        raise _Refused(f"its attribute {clip(name)} is no list of names")
    value = group.attrs[name]
    texts = [value] if isinstance(value, (str, bytes)) else list(value)
    if not all(isinstance(text, (str, bytes)) for text in texts):
        raise _Refused(f"its attribute {clip(name)} is no list of names")
    return [text.decode() if isinstance(text, bytes) else text for text in texts]
