"""HRNetV2 (Wang et al., arXiv 1908.07919, section 3 and figure 2): four resolutions side by side
from stride 4 on, exchanged after every module."""

from __future__ import annotations

from keras import layers

from clusterseg.models.layers import Tensor, Upsample, batch_norm, conv_bn_relu

_BLOCKS = 4  # residual blocks of a branch in a module
_MODULES = {2: 1, 3: 4, 4: 3}  # branches of a stage: its modules
_STEM = 64


def hrnet(image: Tensor, width: int) -> Tensor:
    """15 * `width` channels of stride 4: the four maps, of `width` channels and twice as many at
    each halving, at the size of the finest."""
    x = conv_bn_relu(image, _STEM, 3, stride=2, name="stem_0")
    x = conv_bn_relu(x, _STEM, 3, stride=2, name="stem_1")
    for block in range(_BLOCKS):
        x = _bottleneck(x, _STEM, f"stage1_{block}")
    maps = [conv_bn_relu(x, width, 3, name="transition1_0")]
    last = x
    for branches, modules in _MODULES.items():
        finer = branches - 1
        name = f"transition{finer}_{finer}"
        maps.append(conv_bn_relu(last, width << finer, 3, stride=2, name=name))
        for module in range(modules):
            maps = _module(maps, width, f"stage{branches}_{module}")
        last = maps[-1]
    size = maps[0].shape[1:3]
    same = [maps[0]]
    same += [Upsample(size, name=f"out_{i}_upsample")(maps[i]) for i in range(1, len(maps))]
    return layers.Concatenate(name="out")(same)


def _module(maps: list[Tensor], width: int, name: str) -> list[Tensor]:
    """Residual blocks on each map; then each becomes the sum of all, at its size."""
    maps = [_branch(x, f"{name}_branch{branch}") for branch, x in enumerate(maps)]
    fused = []
    for to, own in enumerate(maps):
        terms = []
        for start, x in enumerate(maps):
            fuse = f"{name}_fuse{start}to{to}"
            terms.append(
                _up(x, own, fuse) if start > to else _down(x, to - start, width << to, fuse)
            )
        x = layers.Add(name=f"{name}_fuse{to}_add")(terms)
        fused.append(layers.ReLU(name=f"{name}_fuse{to}_relu")(x))
    return fused


def _branch(x: Tensor, name: str) -> Tensor:
    for block in range(_BLOCKS):
        x = _basic(x, f"{name}_{block}")
    return x


def _up(x: Tensor, like: Tensor, name: str) -> Tensor:
    """A coarser map with the channels and the size of the map `like`."""
    x = _conv_bn(x, like.shape[-1], 1, name)
    return Upsample(like.shape[1:3], name=f"{name}_upsample")(x)


def _down(x: Tensor, halvings: int, filters: int, name: str) -> Tensor:
    """A finer map halved; the last halving gives it `filters` channels. None: as it is."""
    for step in range(halvings - 1):
        x = conv_bn_relu(x, x.shape[-1], 3, stride=2, name=f"{name}_{step}")
    if halvings:
        x = _conv_bn(x, filters, 3, f"{name}_{halvings - 1}", stride=2)
    return x


def _basic(x: Tensor, name: str) -> Tensor:
    before = x
    x = conv_bn_relu(x, x.shape[-1], 3, name=f"{name}_0")
    x = _conv_bn(x, x.shape[-1], 3, f"{name}_1")
    x = layers.Add(name=f"{name}_add")([before, x])
    return layers.ReLU(name=f"{name}_relu")(x)


def _bottleneck(x: Tensor, filters: int, name: str) -> Tensor:
    wide = 4 * filters
    before = x if x.shape[-1] == wide else _conv_bn(x, wide, 1, f"{name}_shortcut")
    x = conv_bn_relu(x, filters, 1, name=f"{name}_0")
    x = conv_bn_relu(x, filters, 3, name=f"{name}_1")
    x = _conv_bn(x, wide, 1, f"{name}_2")
    x = layers.Add(name=f"{name}_add")([before, x])
    return layers.ReLU(name=f"{name}_relu")(x)


def _conv_bn(x: Tensor, filters: int, kernel: int, name: str, *, stride: int = 1) -> Tensor:
    x = layers.Conv2D(
        filters,
        kernel,
        strides=stride,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(x)
    return batch_norm(x, name=f"{name}_bn")
