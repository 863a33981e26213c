"""Builds a network by name. A network is a file in `clusterseg/models/networks`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from clusterseg import registry
from clusterseg.data.normalisation import IMAGENET, Normalisation
from clusterseg.errors import ClustersegError

if TYPE_CHECKING:
    import keras

NETWORKS = "clusterseg.models.networks"


def build_model(name: str, classes: int, size: tuple[int, int], **options: Any) -> keras.Model:
    """The network `name` for pictures of `size` (height, width).

    Input: float32 [n, height, width, 3], RGB, normalised by the data pipeline
    (as `normalisation_of` says). Output: float32 logits [n, height, width, classes]; of a network
    that was asked for auxiliary outputs (`aux=True`) a list of such, the main one first.

    Layer names tell the place in the structure and never hold Keras' process-wide counters:
    variable paths are the same however many models the process built before. Weights are drawn
    from Keras' global generator: call `keras.utils.set_random_seed` first for equal ones.

    Raises ClustersegError: unknown model or option, an option's value out of range, or a size
    that the network can't take.
    """
    module = registry.load(NETWORKS, "model", name)
    registry.check_options("model", name, module.build, options)
    if classes < 2:
        raise ClustersegError(
            f"a model needs at least 2 classes, not {classes}", code="bad-classes"
        )
    height, width = size
    if height < 1 or width < 1:
        raise ClustersegError(
            f"input size {height}x{width} is not a size",
            code="bad-size",
            help="give height and width in pixels, e.g. size: [360, 480]",
        )
    model: keras.Model = module.build(classes, (height, width), **options)
    return model


def main_output(model: keras.Model) -> keras.Model:
    """The model without its auxiliary outputs, on the same layers; itself if it has none."""
    if len(model.outputs) == 1:
        return model
    import keras  # noqa: PLC0415 (the names of networks are asked for without it)

    return keras.Model(model.input, model.outputs[0], name=model.name)


def auxiliary_weights(name: str) -> tuple[float, ...]:
    """What the losses of the auxiliary outputs of the network `name` count beside the main one's,
    in their order, where the job says nothing: its module's `AUX_WEIGHTS`."""
    module = registry.load(NETWORKS, "model", name)
    weights: tuple[float, ...] = getattr(module, "AUX_WEIGHTS", (0.4,))
    return weights


def normalisation_of(name: str, options: Mapping[str, Any]) -> Normalisation:
    """How pictures become the input of the network `name` with these `options`.

    It follows from the weights that its encoder is usually started from; networks whose module has
    no `normalisation(**options)` take ImageNet's.
    """
    module = registry.load(NETWORKS, "model", name)
    if not hasattr(module, "normalisation"):
        return IMAGENET
    found: Normalisation = module.normalisation(**options)
    return found


def model_names() -> list[str]:
    """All names that `build_model` takes, sorted."""
    return registry.names(NETWORKS)
