"""Joint pyramid upsampling (Wu et al., arXiv 1903.11816, section 3.3): a map of stride 8, as a
dilated encoder would give it, from the maps of one that strides to the end."""

from __future__ import annotations

from collections.abc import Sequence

from keras import layers

from clusterseg.models.dilated import depthwise_initializer
from clusterseg.models.layers import Tensor, Upsample, batch_norm, conv_bn_relu

_WIDTH = 512
_DILATIONS = (1, 2, 4, 8)


def jpu(maps: Sequence[Tensor], *, name: str = "jpu") -> Tensor:
    """2048 channels at the size of the first of the `maps`, which are those of the encoder from
    stride 8 on. 19,735,552 parameters on 512, 1024 and 2048 channels."""
    size = maps[0].shape[1:3]
    same = []
    for i, one in enumerate(maps):
        x = conv_bn_relu(one, _WIDTH, 3, name=f"{name}_in_{i}")
        same.append(Upsample(size, name=f"{name}_in_{i}_upsample")(x) if i else x)
    x = layers.Concatenate(name=f"{name}_in")(same)
    branches = [_separable(x, dilation, f"{name}_{dilation}") for dilation in _DILATIONS]
    return layers.Concatenate(name=f"{name}_out")(branches)


def _separable(x: Tensor, dilation: int, name: str) -> Tensor:
    """A depthwise and a 1x1 convolution, each with batch norm; ReLU after the second alone."""
    x = layers.DepthwiseConv2D(
        3,
        dilation_rate=dilation,
        padding="same",
        use_bias=False,
        depthwise_initializer=depthwise_initializer(),
        name=f"{name}_depthwise",
    )(x)
    x = batch_norm(x, name=f"{name}_depthwise_bn")
    return conv_bn_relu(x, _WIDTH, 1, name=f"{name}_pointwise")
