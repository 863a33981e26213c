"""DeepLabV3 (Chen et al., arXiv 1706.05587) on TF-slim's ResNet-101, as the Ascend seed trains it.

Without decoder: the pyramid's map is classified and resized. The rates of the pyramid follow the
output stride (the seed kept 6, 12, 18 at a stride of 8, where 12, 24, 36 were meant).
"""

from __future__ import annotations

from collections.abc import Sequence

import keras

from clusterseg.data.normalisation import Normalisation
from clusterseg.errors import ClustersegError
from clusterseg.models.backbones.preprocessing import MINUS_ONE_TO_ONE, SLIM
from clusterseg.models.backbones.resnet_slim import resnet_slim
from clusterseg.models.heads.aspp import aspp, rates_for
from clusterseg.models.heads.classifier import auxiliary, classifier

_BACKBONES = {"resnet101": SLIM, "resnet101_beta": MINUS_ONE_TO_ONE}
_DEFAULT = "resnet101_beta"
_STRIDES = (8, 16)
_AUXILIARY_FILTERS = 256


def build(
    classes: int,
    size: tuple[int, int],
    *,
    backbone: str = _DEFAULT,
    output_stride: int = 16,
    atrous_rates: Sequence[int] | None = None,
    multi_grid: Sequence[int] = (1, 1, 1),
    dropout: float = 0.1,
    aux: bool = False,
) -> keras.Model:
    """DeepLabV3 for any `size` (height, width); see `build_model`.

    `atrous_rates` of the pyramid: 6, 12, 18 at `output_stride` 16, 12, 24, 36 at 8 by default.
    `multi_grid`: rates of the last block's three units. `dropout` behind the pyramid. `aux`: a
    second output, on the third block.
    """
    _check(backbone, output_stride, multi_grid, dropout)
    rates = rates_for("deeplabv3", output_stride, atrous_rates)
    image = keras.Input((*size, 3), name="image")
    features = resnet_slim(
        image, output_stride, beta=backbone == "resnet101_beta", multi_grid=multi_grid
    )
    outputs = [classifier(aspp(features.block4, rates, dropout=dropout), classes, size)]
    if aux:
        outputs.append(
            auxiliary(features.block3, _AUXILIARY_FILTERS, classes, size, dropout=dropout)
        )
    return keras.Model(image, outputs if aux else outputs[0], name="deeplabv3")


def normalisation(*, backbone: str = _DEFAULT, **_: object) -> Normalisation:
    """What the encoder's published weights were trained with."""
    return _BACKBONES[backbone]


def _check(backbone: str, output_stride: int, multi_grid: Sequence[int], dropout: float) -> None:
    if backbone not in _BACKBONES:
        raise ClustersegError(
            f"deeplabv3: backbone must be one of {', '.join(_BACKBONES)}, not {backbone!r}",
            code="bad-option",
        )
    if output_stride not in _STRIDES:
        raise ClustersegError(
            f"deeplabv3: output_stride must be 8 or 16, not {output_stride}", code="bad-option"
        )
    if len(multi_grid) != 3 or any(rate < 1 for rate in multi_grid):
        raise ClustersegError(
            f"deeplabv3: multi_grid must be three numbers from 1 on, not {list(multi_grid)}",
            code="bad-option",
        )
    if not 0 <= dropout < 1:
        raise ClustersegError(
            f"deeplabv3: dropout must be at least 0 and below 1, not {dropout}", code="bad-option"
        )
