"""The decoder of DeepLabV3+ (Chen et al., arXiv 1802.02611, section 3.1)."""

from __future__ import annotations

from keras import layers

from clusterseg.models.heads.aspp import FILTERS, separable_bn_relu
from clusterseg.models.layers import Tensor, Upsample, conv_bn_relu

_LOW_FILTERS = 48


def decoder(low: Tensor, high: Tensor, *, separable: bool, name: str = "decoder") -> Tensor:
    """256 channels at the size of `low`, the encoder's map of stride 4, from both maps."""
    low = conv_bn_relu(low, _LOW_FILTERS, 1, name=f"{name}_low")
    high = Upsample(low.shape[1:3], name=f"{name}_upsample")(high)
    x = layers.Concatenate(name=f"{name}_concat")([high, low])
    for i in range(2):
        if separable:
            x = separable_bn_relu(x, FILTERS, name=f"{name}_{i}")
        else:
            x = conv_bn_relu(x, FILTERS, 3, name=f"{name}_{i}")
    return x
