"""The files of `keras.applications.Xception`: four of its layers pairs have no name of their own.

They are the convolutions and batch norms beside the blocks that pool, `conv2d_1` to `conv2d_4` or
whatever Keras had counted to; their order is that of the blocks.
"""

from __future__ import annotations

import re

from clusterseg.train.initial_weights.adapters.names import layers_of, renamed
from clusterseg.train.initial_weights.source import Source

_KNOWN_BY = ("block1_conv1", "block13_sepconv1", "block14_sepconv2")
_BLOCKS = (2, 3, 4, 13)
_COUNTED = {
    "residual_conv": re.compile(r"conv2d(?:_([0-9]{1,9}))?"),
    "residual_bn": re.compile(r"batch_normalization(?:_([0-9]{1,9}))?"),
}


def adapt(source: Source) -> Source | None:
    """The source with names for all layers; None if it is another file."""
    names = layers_of(source.items)
    if not names.issuperset(_KNOWN_BY):
        return None
    ours: dict[str, str] = {}
    for kind, pattern in _COUNTED.items():
        found = {name: int(known[1] or 0) for name in names if (known := pattern.fullmatch(name))}
        if len(found) != len(_BLOCKS):
            return None
        for block, name in zip(_BLOCKS, sorted(found, key=found.__getitem__), strict=True):
            ours[name] = f"block{block}_{kind}"
    items = tuple(
        renamed(item, ours[item.own.layer]) if item.own and item.own.layer in ours else item
        for item in source.items
    )
    return Source(f"{source.kind} of Keras' Xception", items, source.read)
