"""What is exported: one trained network, and all that tells others how to use it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from clusterseg.data.dataset import Color
from clusterseg.data.normalisation import Normalisation

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Network:
    """A network with its weights, computing in float32.

    `model` takes normalised pictures, float32 [n, height, width, 3], and gives logits, float32
    [n, height, width, classes]; `size` is (height, width). `class_ids` are what masks of the
    data set, and submissions, hold for each class; None: the classes' own numbers. `origin` says
    where the weights are from, in plain values.
    """

    name: str
    model: keras.Model
    normalisation: Normalisation
    class_names: tuple[str, ...]
    colors: tuple[Color, ...]
    size: tuple[int, int]
    class_ids: tuple[int, ...] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    origin: Mapping[str, Any] = field(default_factory=dict)

    @property
    def classes(self) -> int:
        """How many classes the logits have: at least as many as there are names."""
        return int(self.model.output_shape[-1])

    @property
    def decides(self) -> bool:
        """Whether a last bit can change more on the way than the last bits of what follows:
        activations are rounded to a few values, or put where the largest of four was."""
        return any(
            hasattr(layer, "most") or hasattr(layer, "by_window") for layer in self.model.layers
        )
