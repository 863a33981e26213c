"""Loads .keras files of our networks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from clusterseg import registry
from clusterseg.models.build import NETWORKS, model_names

if TYPE_CHECKING:
    import keras


def load_saved(path: Path | str) -> keras.Model:
    """The network in a .keras file, not compiled.

    Such a file names layers of ours by their registered names (`clusterseg>Upsample`); Keras knows
    them once the modules that define them are imported: those of the networks are.
    """
    import keras  # noqa: PLC0415 (with it comes TensorFlow)

    for name in model_names():
        registry.load(NETWORKS, "model", name)
    model: keras.Model = keras.saving.load_model(path, compile=False)
    return model
