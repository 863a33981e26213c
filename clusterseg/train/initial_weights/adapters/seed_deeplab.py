"""The `.hdf5` files that the ImageSegmentation seed saved of its DeepLabV3+.

The encoder is named as Keras' applications are. Its decoder stood on a map of another stride than
ours (8, not 4) of the same channels: a start for training, not a network that is trained.

It saw pictures from 0 to 1, ours are from -1 to 1: x = (y + 1) / 2. Half of the first kernel does
for the factor, and the moving mean of the batch norm behind it takes what 1 / 2 adds: the same
numbers, but for the outermost pixels, around which there is 0 either way.
"""

from __future__ import annotations

import re
from typing import Any

from numpy.typing import NDArray

from clusterseg.train.initial_weights.adapters.names import layers_of, renamed
from clusterseg.train.initial_weights.match import Item, Member
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
# The first convolution of each encoder, and the batch norm behind it.
_FIRST = {"Conv1": "bn_Conv1", "block1_conv1": "block1_conv1_bn"}
_KERNEL = (3, 3, 3, 32)  # of both
_MEAN = 2  # gamma, beta, moving mean, moving variance
_ATROUS = re.compile(r"ASPP_(?:[Ss]ep_)?conv3x3_d(6|12|18)(_batch_norm)?")


def adapt(source: Source) -> Source | None:
    """The source under our names; None if it is another file."""
    if not layers_of(source.items).issuperset(_KNOWN_BY):
        return None
    items = tuple(
        renamed(item, ours) if item.own and (ours := _ours(item.own.layer)) else item
        for item in source.items
    )
    kernel, mean = _first(items)

    def read(name: str) -> NDArray[Any]:
        numbers = source.read(name)
        if kernel is None or mean is None:
            return numbers
        if name == kernel.name:
            return numbers / 2
        if name == mean.name:
            numbers = numbers - source.read(kernel.name).sum(axis=(0, 1, 2)) / 2
        return numbers

    return Source(f"{source.kind} of the ImageSegmentation seed's DeepLabV3+", items, read)


def _first(items: tuple[Item, ...]) -> tuple[Item | None, Item | None]:
    """The kernel of the first convolution and the moving mean behind it, if they fit each other."""
    known = {item.own: item for item in items if item.own}
    for convolution, norm in _FIRST.items():
        kernel, mean = known.get(Member(convolution, 0, 1)), known.get(Member(norm, _MEAN, 4))
        if kernel and mean and (kernel.shape, mean.shape) == (_KERNEL, _KERNEL[3:]):
            return kernel, mean
    return None, None


def _ours(layer: str) -> str | None:
    if layer == "Classification":
        return "logits_conv"
    atrous = _ATROUS.fullmatch(layer)
    if atrous:
        return f"aspp_atrous_{_RATES[atrous[1]]}_{'bn' if atrous[2] else 'conv'}"
    plain = layer.removesuffix("_batch_norm")
    return f"{_PARTS[plain]}_{'conv' if plain == layer else 'bn'}" if plain in _PARTS else None
