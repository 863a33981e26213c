"""Pyramid pooling (Zhao et al., arXiv 1612.01105, section 3.2)."""

from __future__ import annotations

from keras import layers

from clusterseg.models.layers import Dropout, PyramidPool, Tensor, Upsample, conv_bn_relu

_BINS = (1, 2, 3, 6)
_FILTERS = 512


def psp(x: Tensor, *, dropout: float, name: str = "psp") -> Tensor:
    """512 channels: the map beside its means over 1, 2, 3 and 6 cells a side."""
    parts = [x]
    for bins in _BINS:
        level = f"{name}_{bins}"
        pooled = PyramidPool(bins, name=f"{level}_pool")(x)
        pooled = conv_bn_relu(pooled, x.shape[-1] // len(_BINS), 1, name=level)
        parts.append(Upsample(x.shape[1:3], name=f"{level}_upsample")(pooled))
    x = layers.Concatenate(name=f"{name}_concat")(parts)
    x = conv_bn_relu(x, _FILTERS, 3, name=f"{name}_out")
    return Dropout(dropout, name=f"{name}_dropout")(x) if dropout else x
