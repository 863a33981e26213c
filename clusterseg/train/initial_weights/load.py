"""Sets the fresh weights of a run from a file; on rank 0, whose state all ranks get."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import keras
import numpy as np

from clusterseg.errors import lasting
from clusterseg.spec.errors import clip, visible
from clusterseg.train.failures import say
from clusterseg.train.initial_weights.adapters import adapt
from clusterseg.train.initial_weights.match import Item, Member, Report, match
from clusterseg.train.initial_weights.read import open_source
from clusterseg.train.initial_weights.source import bad_weights
from clusterseg.train.state import TrainState

_ROOM = "model/"


def load_initial_weights(path: Path, state: TrainState) -> Report:
    """Gives each variable of the model its tensor in the file, where there is one that fits, and
    tells which.

    The others keep what they were drawn with; each of them is named in the rank's log (standard
    error), and one warning has the numbers. Optimizer and generators stay fresh. Raises
    ClustersegError: the file can't be read, no tensor in it fits, or one holds NaN or infinity.
    """
    with open_source(path) as stored:
        source = adapt(stored)
        report = match(source.items, _targets(state))
        if not report.loaded:
            shown = "; ".join(report.misfits()[:3]) or "it holds no tensors"
            with lasting():
                raise bad_weights(
                    path,
                    f"({source.kind} of {len(source.items)} tensors) fits no layer of this "
                    f"network: {shown}",
                    "give weights of the same network: train.model and its options tell the names "
                    "and shapes of its layers",
                )
        for name, tensor in report.loaded.items():
            with np.errstate(over="ignore"):  # a float64 beyond float32 is infinite below
                numbers = np.asarray(source.read(tensor), np.float32)
            if not np.isfinite(numbers).all():
                with lasting():
                    raise bad_weights(path, f"holds NaN or infinity in {clip(tensor, 300)}")
            state.variables[name].assign(numbers)
    lines = [f"initial weights: {line}" for line in report.misfits()]
    mood = "" if report.whole else "warning: "
    where = visible(str(path))
    lines.append(f"{mood}initial weights: {where} ({source.kind}) gave {report.counts()}")
    say("\n".join(lines))
    return report


def _targets(state: TrainState) -> list[Item]:
    """The model's variables, with all that they can be found by."""
    paths = [name.removeprefix(_ROOM) for name in state.variables if name.startswith(_ROOM)]
    layers = [path.rpartition("/")[0] for path in paths]
    sizes = Counter(layers)
    places = _places(state.model)
    done: Counter[str] = Counter()
    found = []
    for path, layer in zip(paths, layers, strict=True):
        index, of = done[layer], sizes[layer]
        done[layer] += 1
        name = f"{_ROOM}{path}"
        found.append(
            Item(
                name,
                tuple(state.variables[name].shape),
                path=path,
                own=Member(layer.rpartition("/")[2], index, of),
                place=Member(places[layer], index, of) if layer in places else None,
            )
        )
    return found


def _places(model: keras.Model) -> dict[str, str]:
    """Layer → its class as Keras writes it and its number among those of that class.

    A layer of our own counts as the one of Keras that it is made from, as an older file has it.
    """
    turns: Counter[str] = Counter()
    places: dict[str, str] = {}
    for layer in model.layers:
        kinds = [kind for kind in type(layer).__mro__ if kind.__module__.startswith("keras.")]
        kind = _snake(kinds[0].__name__)
        places[layer.path or layer.name] = f"{kind}#{turns[kind]}"
        turns[kind] += 1
    return places


def _snake(name: str) -> str:
    """`DepthwiseConv2D` as `depthwise_conv2d`; as Keras does it (`naming.to_snake_case`)."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
