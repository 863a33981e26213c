"""FastFCN (Wu et al., arXiv 1903.11816): an encoder that strides to the end, joint pyramid
upsampling to stride 8 in place of dilations, and a head of another network on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import keras

from clusterseg.data.normalisation import Normalisation
from clusterseg.errors import ClustersegError
from clusterseg.models.backbones.preprocessing import CAFFE
from clusterseg.models.backbones.resnet import resnet
from clusterseg.models.heads.aspp import aspp, rates_for
from clusterseg.models.heads.classifier import auxiliary, classifier
from clusterseg.models.heads.encnet import encnet
from clusterseg.models.heads.jpu import jpu
from clusterseg.models.heads.psp import psp
from clusterseg.models.layers import Tensor

_DEPTHS = {"resnet50": 50, "resnet101": 101}
_HEADS: Mapping[str, Callable[[Tensor, Sequence[int], float], Tensor]] = {
    "deeplab": lambda x, rates, dropout: aspp(x, rates, dropout=dropout),
    "psp": lambda x, _, dropout: psp(x, dropout=dropout),
    "encnet": lambda x, _, dropout: encnet(x, dropout=dropout),
}
_AUXILIARY_FILTERS = 256


def build(
    classes: int,
    size: tuple[int, int],
    *,
    backbone: str = "resnet50",
    head: str = "deeplab",
    atrous_rates: Sequence[int] | None = None,
    dropout: float = 0.1,
    aux: bool = False,
) -> keras.Model:
    """FastFCN for any `size` (height, width); see `build_model`.

    `head`: DeepLabV3's pyramid, PSPNet's pooling or EncNet's encoding; `dropout` behind it.
    `atrous_rates` of the pyramid: 12, 24, 36 by default. `aux`: a second output, on the encoder's
    fourth block.
    """
    _check(backbone, head, atrous_rates, dropout)
    rates = rates_for("fastfcn", 8, atrous_rates)
    image = keras.Input((*size, 3), name="image")
    maps = resnet(image, _DEPTHS[backbone], 32)
    x = _HEADS[head](jpu([maps.conv3, maps.conv4, maps.conv5]), rates, dropout)
    outputs = [classifier(x, classes, size)]
    if aux:
        outputs.append(auxiliary(maps.conv4, _AUXILIARY_FILTERS, classes, size, dropout=dropout))
    return keras.Model(image, outputs if aux else outputs[0], name="fastfcn")


def normalisation(**_: object) -> Normalisation:
    """What the encoder's published weights were trained with."""
    return CAFFE


def _check(backbone: str, head: str, atrous_rates: Sequence[int] | None, dropout: float) -> None:
    for option, value, known in (("backbone", backbone, _DEPTHS), ("head", head, _HEADS)):
        if value not in known:
            raise ClustersegError(
                f"fastfcn: {option} must be one of {', '.join(known)}, not {value!r}",
                code="bad-option",
            )
    if atrous_rates is not None and head != "deeplab":
        raise ClustersegError(
            f"fastfcn: atrous_rates are those of the head deeplab, {head} has none",
            code="bad-option",
        )
    if not 0 <= dropout < 1:
        raise ClustersegError(
            f"fastfcn: dropout must be at least 0 and below 1, not {dropout}", code="bad-option"
        )
