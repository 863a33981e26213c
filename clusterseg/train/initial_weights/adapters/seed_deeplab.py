"""The `.hdf5` files that the ImageSegmentation seed saved of its DeepLabV3+.

The encoder is named as Keras' applications are. Its decoder stood on a map of another stride than
ours (8, not 4) of the same channels: a start for training, not a network that is trained.
"""

from __future__ import annotations

import re

from clusterseg.train.initial_weights.adapters.names import layers_of, renamed
from clusterseg.train.initial_weights.source import Source

_KNOWN_BY = ("ASPP_project_conv", "decoder_conv1x1", "decoder_conv2")
_RATES = {"6": "1", "12": "2", "18": "3"}  # its names say these at a stride of 8, too
_PARTS = {
    "ASPP_conv1": "aspp_image",
    "ASPP_conv1x1": "aspp_1x1",
    "ASPP_project_conv": "aspp_project",
    "decoder_conv1x1": "decoder_low",
    "decoder_conv1": "decoder_0",
    "decoder_conv2": "decoder_1",
}
_ATROUS = re.compile(r"ASPP_(?:[Ss]ep_)?conv3x3_d(6|12|18)(_batch_norm)?")


def adapt(source: Source) -> Source | None:
    """The source under our names; None if it is another file."""
    if not layers_of(source.items).issuperset(_KNOWN_BY):
        return None
    items = tuple(
        renamed(item, ours) if item.own and (ours := _ours(item.own.layer)) else item
        for item in source.items
    )
    return Source(f"{source.kind} of the ImageSegmentation seed's DeepLabV3+", items, source.read)


def _ours(layer: str) -> str | None:
    if layer == "Classification":
        return "logits_conv"
    atrous = _ATROUS.fullmatch(layer)
    if atrous:
        return f"aspp_atrous_{_RATES[atrous[1]]}_{'bn' if atrous[2] else 'conv'}"
    plain = layer.removesuffix("_batch_norm")
    return f"{_PARTS[plain]}_{'conv' if plain == layer else 'bn'}" if plain in _PARTS else None
