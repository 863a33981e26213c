"""A trained network for an export: from a run's checkpoint, or from weights and a job.yaml."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.runs.checkpoint_file import CheckpointError, read_layout
from clusterseg.runs.records import CheckpointHeader
from clusterseg.spec.errors import visible
from clusterseg.spec.model import OptimizerSpec, TrainSpec

if TYPE_CHECKING:
    import keras

    from clusterseg.data import Dataset


@dataclass(frozen=True)
class Source:
    """What to export: a file of weights, and the training that it is of.

    Relative paths of `spec` start in `directory`. `origin` says where the file is from.
    """

    weights: Path
    spec: TrainSpec
    directory: Path
    origin: Mapping[str, Any]


@dataclass(frozen=True)
class Trained:
    """The network in float32, with one output; `size` is (height, width).

    `dataset` is None where the data set is not here: `missing` says why. Then classes have numbers
    for names.
    """

    model: keras.Model
    class_names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    size: tuple[int, int]
    dataset: Dataset | None
    missing: str | None


def load(source: Source, *, size: tuple[int, int] | None, threads: int) -> Trained:
    """Builds the network for `size` (that of the training if None) with the weights of `source`.

    A checkpoint gives its averages, where it has some: what was validated. Raises ClustersegError:
    weights that can't be read or don't fit whole, a size that the network can't take, or numbers
    that nothing tells.
    """
    header = _header(source.weights)
    os.chdir(source.directory)  # relative paths in job.yaml start there
    from clusterseg.train.devices import prepare_tensorflow

    prepare_tensorflow(threads, deterministic=False)
    from clusterseg.models import build_model, main_output

    spec = source.spec
    dataset, missing = _dataset(spec)
    classes = _classes(spec, dataset, header, missing)
    size = size or _size(spec, dataset, header, missing)
    model = build_model(spec.model.name, classes, size, **spec.model.options)
    _fill(model, source.weights)
    names = dataset.class_names if dataset else tuple(f"class {n}" for n in range(classes))
    colors = dataset.colors if dataset else tuple(_color(n) for n in range(classes))
    return Trained(main_output(model), names, colors, size, dataset, missing)


def _dataset(spec: TrainSpec) -> tuple[Dataset | None, str | None]:
    from clusterseg.data import open_dataset

    try:
        return open_dataset(spec.data, spec.loss.ignore), None
    except ClustersegError as error:
        return None, error.message


def _header(path: Path) -> CheckpointHeader | None:
    """The header of a checkpoint of ours; None of any other file."""
    try:
        return read_layout(path).header
    except CheckpointError:
        return None


def _classes(
    spec: TrainSpec,
    dataset: Dataset | None,
    header: CheckpointHeader | None,
    missing: str | None,
) -> int:
    if spec.model.classes:
        return spec.model.classes
    if header and "model.classes" in header.identity:
        return int(header.identity["model.classes"])
    if dataset is not None:
        return dataset.classes
    raise _untold("number of classes", missing, "train.model.classes=11")


def _size(
    spec: TrainSpec,
    dataset: Dataset | None,
    header: CheckpointHeader | None,
    missing: str | None,
) -> tuple[int, int]:
    if spec.data.size:
        return spec.data.size
    if header and "data.size" in header.identity:
        height, _, width = header.identity["data.size"].partition("x")
        return int(height), int(width)
    if dataset is not None:
        return dataset.size
    raise _untold("size of the pictures", missing, "train.data.size=[360,480]")


def _untold(what: str, missing: str | None, example: str) -> ClustersegError:
    return ClustersegError(
        f"nothing tells the {what}: the data set can't be opened ({missing})",
        code="no-data",
        help=f"say it: --set {example}",
        exit_code=ExitCode.FAILED,
    )


def _fill(model: keras.Model, path: Path) -> None:
    """Every variable of the model from the file, or a ClustersegError."""
    from clusterseg.train.initial_weights.load import load_initial_weights
    from clusterseg.train.optimizers import build_optimizer
    from clusterseg.train.state import TrainState

    plain = build_optimizer(OptimizerSpec(momentum=0.0), model.trainable_variables)
    state = TrainState(model, plain)
    numbers = [one for one in model.variables if str(one.dtype).startswith(("float", "bfloat"))]
    for one in numbers:
        one.assign(np.full(one.shape, np.nan))
    load_initial_weights(path, state)
    # What a file gives is finite: what is not was left as it was.
    left = [one.path for one in numbers if not np.isfinite(np.asarray(one.value)).all()]
    if left:
        raise ClustersegError(
            f"{visible(str(path))} has no weights for {len(left)} of the network's "
            f"{len(numbers)} variables: {', '.join(left[:3])}{', ...' if len(left) > 3 else ''}",
            code="weights",
            help="export with the train.model that the weights were trained with",
            exit_code=ExitCode.FAILED,
        )


def _color(number: int) -> tuple[int, int, int]:
    """Colour of a class without one: PASCAL VOC's, which spreads the number's bits over RGB."""
    channels = [0, 0, 0]
    for bit in range(8):
        for channel in range(3):
            channels[channel] |= (number >> (3 * bit + channel) & 1) << (7 - bit)
    red, green, blue = channels
    return red, green, blue
