"""The files of `keras.applications.ResNet50` and `ResNet101`: their convolutions have a bias.

Ours have none: batch norm takes the mean off again, so that (x + bias) - mean = x - (mean - bias).
The bias goes into the moving mean.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from clusterseg.train.initial_weights.adapters.names import layers_of
from clusterseg.train.initial_weights.match import Item, Member
from clusterseg.train.initial_weights.source import Source

_CONV = re.compile(r"conv1_conv|conv[2-5]_block[0-9]+_[0-3]_conv")
_KNOWN_BY = ("conv1_conv", "conv2_block1_0_conv", "conv2_block1_1_bn")
_NOT_BY = "conv2_block1_preact_bn"  # the second version of the net, whose order is another one
_MEAN = 2  # gamma, beta, moving mean, moving variance


def adapt(source: Source) -> Source | None:
    """The source without biases before a batch norm; None if it is another file."""
    names = layers_of(source.items)
    if not names.issuperset(_KNOWN_BY) or _NOT_BY in names:
        return None
    biases: dict[Member, Item] = {}  # by the moving mean it goes into
    items: list[Item] = []
    for item in source.items:
        own = item.own
        if own is None or own.of != 2 or not _CONV.fullmatch(own.layer):
            items.append(item)
        elif own.number == 0:
            items.append(replace(item, own=Member(own.layer, 0, 1)))
        else:
            biases[Member(f"{own.layer.removesuffix('conv')}bn", _MEAN, 4)] = item
    if not biases:
        return None
    into = {item.name: biases[item.own] for item in items if item.own and item.own in biases}
    shapes = {item.name: item.shape for item in items}
    # A bias of another length would be spread over the means, or say nothing of which file it is.
    sound = all(bias.shape == shapes[mean] for mean, bias in into.items())
    if len(into) != len(biases) or not sound:
        return None

    def read(name: str) -> NDArray[Any]:
        numbers = source.read(name)
        return numbers - source.read(into[name].name) if name in into else numbers

    return Source(f"{source.kind} of Keras' ResNet", tuple(items), read)
