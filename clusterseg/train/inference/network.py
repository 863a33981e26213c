"""A trained network that takes pictures of any size."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import keras
import msgspec
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from clusterseg.data.geometry import normalise, resize_image
from clusterseg.errors import ClustersegError, lasting
from clusterseg.models import build_model, main_output, normalisation_of
from clusterseg.models.monte_carlo import draw, dropouts, monte_carlo
from clusterseg.runs.checkpoint_file import read_verified
from clusterseg.runs.checkpoints import CheckpointError
from clusterseg.spec.tables import MODELS
from clusterseg.train.inference.classes import Classes, classes_of
from clusterseg.train.inference.source import Source
from clusterseg.train.precision import policy

Size = tuple[int, int]

_SHOWN = 3  # tensors that don't fit
_HELP = "give weights of this very network, or the job.yaml of theirs"


class Network:
    """The network of a job with trained weights: the averaged ones, where the run kept averages.

    Built anew for every size that it is asked for; the weights are the same.
    """

    def __init__(self, source: Source) -> None:
        """Raises ClustersegError: weights that can't be read or don't fit, and what the job's
        network and data set say."""
        self._spec = source.train
        self._path = Path(source.weights)
        identity, weights = _nothing()
        if source.sha256 is not None:
            identity, weights = _of_checkpoint(self._path, source.sha256)
        self.classes: Classes = classes_of(self._spec, identity)
        self.divisor = MODELS[self._spec.model.name].divides_size
        self._normalisation = normalisation_of(self._spec.model.name, self._spec.model.options)
        self._models: dict[Size, keras.Model] = {}
        self._graphs: dict[tuple[Size, bool], Callable[[tf.Tensor], tf.Tensor]] = {}
        # Built here already: what does not fit is told before the first picture is read.
        with lasting():
            first = self._built(self.classes.size)
        self._weights = weights or _of_file(self._path, first)
        self._models[self.classes.size] = self._trained(first)

    @property
    def can_sample(self) -> bool:
        """Whether it drops anything, so that its predictions can differ."""
        return bool(dropouts(self.model(self.classes.size)))

    def prepared(self, image: tf.Tensor, size: Size | None) -> tf.Tensor:
        """float32 [height, width, 3]: RGB in 0 to 255 brought to `size`, if one is given, and
        normalised, as the trainer's input pipeline does it."""
        image = tf.cast(image, tf.float32)
        if size is not None and tuple(image.shape[:2]) != size:
            image = resize_image(image, tf.constant(size))
        return normalise(image, self._normalisation)

    def logits(
        self, image: tf.Tensor, *, sample: int | None = None, seed: int = 0, picture: str = ""
    ) -> tf.Tensor:
        """float32 [height, width, classes] of a prepared picture. With a `sample`, some channels
        are dropped: those that (seed, sample, picture) draw."""
        height, width, _ = image.shape
        size, random = (int(height), int(width)), sample is not None
        if (size, random) not in self._graphs:
            self._graphs[size, random] = self._graph(size, random)
        if sample is not None:
            draw(self.model(size), seed=seed, sample=sample, picture=picture)
        return self._graphs[size, random](image[tf.newaxis])[0]

    def _graph(self, size: Size, random: bool) -> Callable[[tf.Tensor], tf.Tensor]:
        model = self.model(size)

        @tf.function(  # type: ignore[untyped-decorator]
            input_signature=[tf.TensorSpec([1, *size, 3], tf.float32)], autograph=False
        )
        def graph(images: tf.Tensor) -> tf.Tensor:
            return model(images, training=False)

        if random:
            with monte_carlo(model):
                graph.get_concrete_function()
        found: Callable[[tf.Tensor], tf.Tensor] = graph
        return found

    def model(self, size: Size) -> keras.Model:
        """The network for prepared pictures of `size`, float32 [n, height, width, 3] to logits."""
        if size not in self._models:
            self._models[size] = self._trained(self._built(size))
        return self._models[size]

    def _trained(self, model: keras.Model) -> keras.Model:
        with lasting():
            _check(model, self._weights, self._path)
        for variable in _variables(model):
            variable.assign(self._weights[variable.path])
        return model

    def _built(self, size: Size) -> keras.Model:
        model = self._spec.model
        with policy(self._spec.precision):
            built = build_model(model.name, len(self.classes), size, **model.options)
        return main_output(built)


def opened(source: Source) -> Network:
    """The network of `source`, opened once in a process that is given many tasks, on the device
    that `inference.device` prepared. From now on relative paths start where those of its job do.

    Raises what `Network` does.
    """
    return _opened(msgspec.json.encode(source))


@lru_cache(maxsize=1)
def _opened(source: bytes) -> Network:
    found = msgspec.json.decode(source, type=Source)
    os.chdir(found.directory)
    if found.train.deterministic:
        tf.config.experimental.enable_op_determinism()
    return Network(found)


def _variables(model: keras.Model) -> list[Any]:
    """All but the states of generators."""
    return [one for one in model.variables if str(one.dtype).startswith(("float", "bfloat"))]


def _nothing() -> tuple[Mapping[str, str], dict[str, NDArray[Any]]]:
    return {}, {}


def _of_checkpoint(path: Path, sha256: str) -> tuple[Mapping[str, str], dict[str, NDArray[Any]]]:
    """(identity, weight by the path of its variable). Raises CheckpointError."""
    layout, data = read_verified(path, sha256)
    found: dict[str, NDArray[Any]] = {}
    for room in ("model/", "ema/"):  # the averages are what was validated
        for name, slot in layout.tensors.items():
            if name.startswith(room) and slot.dtype == "F32":
                stored = np.frombuffer(data[slot.begin : slot.end], np.float32)
                found[name.removeprefix(room)] = stored.reshape(slot.shape)
    return layout.header.identity, found


def _check(model: keras.Model, weights: Mapping[str, NDArray[Any]], path: Path) -> None:
    misfits = []
    for one in _variables(model):
        there = weights.get(one.path)
        if there is None:
            misfits.append(f"{one.path} is missing")
        elif there.shape != tuple(one.shape):
            misfits.append(f"{one.path} is {list(there.shape)}, expected {list(one.shape)}")
    if misfits:
        shown = "; ".join(misfits[:_SHOWN])
        more = f"; … ({len(misfits)} tensors)" if misfits[_SHOWN:] else ""
        raise CheckpointError(
            f"{path.name} does not fit this network: {shown}{more}", help=_HELP, details=misfits
        )


def _of_file(path: Path, model: keras.Model) -> dict[str, NDArray[Any]]:
    """The weights of any file that `train.initial_weights` takes, if it holds them all."""
    from clusterseg.train.initial_weights.load import load_initial_weights
    from clusterseg.train.state import TrainState

    optimizer = keras.optimizers.SGD()
    optimizer.build(model.trainable_variables)
    report = load_initial_weights(path, TrainState(model, optimizer))
    if report.missing or report.misshapen:
        with lasting():
            raise ClustersegError(
                f"{path}: {report.counts()}: a network with drawn weights predicts nothing",
                code="bad-weights",
                help=_HELP,
            )
    return {one.path: one.numpy() for one in _variables(model)}
