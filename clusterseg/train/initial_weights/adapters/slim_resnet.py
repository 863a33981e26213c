"""Checkpoints of TF-slim's `resnet_v1_101`, of research/deeplab's `beta` variant of it, and of the
networks that were trained on them."""

from __future__ import annotations

import re

from clusterseg.train.initial_weights.match import Item
from clusterseg.train.initial_weights.source import Source

_LAYER = re.compile(
    r"resnet_v1_[0-9]+/"
    r"(?:(conv1(?:_[123])?)|block([1-4])/unit_([0-9]+)/bottleneck_v1/(shortcut|conv[123]))"
    r"/(weights|BatchNorm/(?:gamma|beta|moving_mean|moving_variance))"
)


def adapt(source: Source) -> Source | None:
    """The encoder's tensors under our paths; None if it is another file.

    What else there is (optimizer, step, classifier) keeps its name, and is told as not used.
    """
    paths = {item.name: _ours(item.name) for item in source.items}
    if not any(paths.values()):
        return None
    items = tuple(
        Item(item.name, item.shape, path=paths[item.name] or item.path) for item in source.items
    )
    return Source(f"{source.kind} of TF-slim's ResNet", items, source.read)


def _ours(name: str) -> str | None:
    """`resnet_v1_101/block1/unit_2/bottleneck_v1/conv3/weights` is `block1_unit_2_conv3/kernel`."""
    known = _LAYER.fullmatch(name)
    if not known:
        return None
    root, block, unit, part, variable = known.groups()
    layer = root or f"block{block}_unit_{unit}_{part}"
    if variable == "weights":
        return f"{layer}/kernel"
    return f"{layer}_bn/{variable.removeprefix('BatchNorm/')}"
