"""Fast-SCNN (Poudel, Liwicki, Cipolla: arXiv 1902.04502), for inputs of any size.

The blocks and channels are the paper's tables 1 and 2; where the paper leaves open how layers
are put together (biases, batch norm inside separable convolutions, 1x1 pyramid convolutions) it
follows Tramac's well-known PyTorch version, whose parameter count it has: 1,138,051 with 19
classes, without the batch norms' moving statistics, which torch does not count as parameters.
"""

from __future__ import annotations

from typing import Literal

import keras
from keras import layers

from clusterseg.data.normalisation import IMAGENET, Normalisation
from clusterseg.errors import ClustersegError
from clusterseg.models.backbones.preprocessing import ZERO_TO_ONE
from clusterseg.models.checks import check_dropout, check_width
from clusterseg.models.fastscnn_seed import build_seed_variant
from clusterseg.models.heads.classifier import auxiliary
from clusterseg.models.layers import (
    Dropout,
    PyramidPool,
    Tensor,
    Upsample,
    batch_norm,
    conv_bn_relu,
    depthwise_bn_relu,
)

# Table 1: expansion factor t, output channels c, repeats n, stride s of the first.
_BOTTLENECKS = ((6, 64, 3, 2), (6, 96, 3, 2), (6, 128, 3, 1))
_PYRAMID_BINS = (1, 2, 3, 6)

AUX_WEIGHTS = (0.4, 0.4)  # section 4
_AUXILIARY_FILTERS = 32  # the paper leaves them open; those of the PyTorch versions


def build(
    classes: int,
    size: tuple[int, int],
    *,
    width: float = 1.0,
    dropout: float = 0.1,
    pyramid: Literal["paper", "seed"] = "paper",
    aux: bool = False,
) -> keras.Model:
    """Fast-SCNN for `size` (height, width); see `clusterseg.models.build_model`.

    `width` multiplies every channel count (multiples of 8), for small pictures and tests;
    `dropout` is the share of channels dropped before the classifier's last convolution. `pyramid`:
    that of the paper, or with `seed` that of the ImageSegmentation seed, with all its other layers
    (`clusterseg.models.fastscnn_seed`), so that the seed's files of weights fit. `aux`: two more
    outputs, on what leaves the learning to downsample and the global feature extractor.
    """
    check_width("fastscnn", width)
    check_dropout("fastscnn", dropout)

    def channels(full: int) -> int:
        return max(8, round(full * width / 8) * 8)

    if pyramid == "seed":
        if aux:
            raise ClustersegError(
                "fastscnn: aux is for the paper's network; the seed's has no such outputs",
                code="bad-option",
                help="leave out aux, or pyramid: seed",
            )
        return build_seed_variant(classes, size, channels, dropout)
    if pyramid != "paper":
        raise ClustersegError(
            f"fastscnn: pyramid must be paper or seed, not {pyramid}", code="bad-option"
        )
    image = keras.Input((*size, 3), name="image")

    x = conv_bn_relu(image, channels(32), 3, stride=2, name="downsample_0")
    x = _separable(x, channels(48), stride=2, name="downsample_1")
    detail = _separable(x, channels(64), stride=2, name="downsample_2")

    x = detail
    for stage, (expansion, full, repeats, stride) in enumerate(_BOTTLENECKS):
        for i in range(repeats):
            name = f"features_{stage}_{i}"
            x = _bottleneck(x, channels(full), expansion, stride if i == 0 else 1, name)
    context = _pyramid(x, channels(128))

    x = _fuse(detail, context, channels(128))
    x = _separable(x, channels(128), name="classifier_0")
    x = _separable(x, channels(128), name="classifier_1")
    if dropout:
        x = Dropout(dropout, name="classifier_dropout")(x)
    x = layers.Conv2D(classes, 1, name="classifier_logits")(x)
    logits = Upsample(size, dtype="float32", name="logits")(x)
    if not aux:
        return keras.Model(image, logits, name="fastscnn")
    inside = [("auxiliary_detail", detail), ("auxiliary_context", context)]
    filters = channels(_AUXILIARY_FILTERS)
    others = [
        auxiliary(x, filters, classes, size, dropout=dropout, name=name) for name, x in inside
    ]
    return keras.Model(image, [logits, *others], name="fastscnn")


def normalisation(*, pyramid: str = "paper", **_: object) -> Normalisation:
    """ImageNet's; for the seed's network that of the seed, whose files of weights fit."""
    return ZERO_TO_ONE if pyramid == "seed" else IMAGENET


def _separable(x: Tensor, filters: int, *, stride: int = 1, name: str) -> Tensor:
    x = depthwise_bn_relu(x, stride=stride, name=f"{name}_spatial")
    return conv_bn_relu(x, filters, 1, name=f"{name}_pointwise")


def _bottleneck(x: Tensor, filters: int, expansion: int, stride: int, name: str) -> Tensor:
    """Inverted residual (table 2), linear at its end."""
    before = x
    x = conv_bn_relu(x, expansion * x.shape[-1], 1, name=f"{name}_expand")
    x = depthwise_bn_relu(x, stride=stride, name=f"{name}_spatial")
    x = layers.Conv2D(
        filters, 1, use_bias=False, kernel_initializer="he_normal", name=f"{name}_project_conv"
    )(x)
    x = batch_norm(x, name=f"{name}_project_bn")
    if stride == 1 and before.shape[-1] == filters:
        x = layers.Add(name=f"{name}_add")([before, x])
    return x


def _pyramid(x: Tensor, filters: int) -> Tensor:
    """Pyramid pooling (PSPNet): averages over 1, 2, 3 and 6 cells a side beside the input."""
    parts = [x]
    for bins in _PYRAMID_BINS:
        name = f"pyramid_{bins}"
        pooled = PyramidPool(bins, name=f"{name}_pool")(x)
        pooled = conv_bn_relu(pooled, x.shape[-1] // len(_PYRAMID_BINS), 1, name=name)
        parts.append(Upsample(x.shape[1:3], name=f"{name}_upsample")(pooled))
    x = layers.Concatenate(name="pyramid_concat")(parts)
    return conv_bn_relu(x, filters, 1, name="pyramid_out")


def _fuse(detail: Tensor, context: Tensor, filters: int) -> Tensor:
    """Feature fusion (table 3). The context is resized to the detail's size, whatever it is."""
    context = Upsample(detail.shape[1:3], name="fusion_upsample")(context)
    context = depthwise_bn_relu(context, name="fusion_context_spatial")
    context = layers.Conv2D(filters, 1, name="fusion_context_conv")(context)
    context = batch_norm(context, name="fusion_context_bn")
    detail = layers.Conv2D(filters, 1, name="fusion_detail_conv")(detail)
    detail = batch_norm(detail, name="fusion_detail_bn")
    x = layers.Add(name="fusion_add")([detail, context])
    return layers.ReLU(name="fusion_relu")(x)
