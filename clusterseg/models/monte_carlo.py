"""Monte Carlo dropout: several predictions of one picture, each with other channels dropped.

Gal and Ghahramani 2016 (arXiv:1506.02142); for segmentation Kendall et al. 2015, Bayesian SegNet
(arXiv:1511.02680). How the predictions differ tells how sure the network is.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import keras
import numpy as np

from clusterseg.models.layers import Dropout

_KEYS = 2**31 - 2  # Keras folds a generator's state to int32


def dropouts(model: keras.Model) -> list[Dropout]:
    """The layers of `model` that can drop something, in its order; none: it has one answer."""
    return [one for one in model._flatten_layers() if isinstance(one, Dropout) and one.rate > 0]


@contextmanager
def monte_carlo(model: keras.Model) -> Iterator[None]:
    """Graphs of `model` that are made inside drop at prediction as well: `training=False` leaves
    the batch norms alone, whose statistics would change otherwise."""
    found = dropouts(model)
    before = [layer.always for layer in found]
    for layer in found:
        layer.always = True
    try:
        yield
    finally:
        for layer, value in zip(found, before, strict=True):
            layer.always = value


def draw(model: keras.Model, *, seed: int, sample: int, picture: str) -> None:
    """Sets what is dropped by the next prediction of one picture: its `sample`-th.

    A function of these three alone, `picture` being the picture's name: the same in whichever
    batch, on whichever host. To be called outside of graphs, before each call of one.
    """
    layers = dropouts(model)
    words = np.random.SeedSequence([seed, sample]).generate_state(len(layers))
    for layer, word in zip(layers, words, strict=True):
        layer.seed_generator.state.assign([int(word) % _KEYS, zlib.crc32(picture.encode()) % _KEYS])
