"""DeepLabV3+ (Chen et al., arXiv 1802.02611) with an encoder of the output stride that it says.

With MobileNetV2 or Xception, 20 classes and separable convolutions it has the parameters of the
ImageSegmentation seed's (4,428,740 and 24,041,388 with the moving statistics), whose encoder ended
at a stride of 32 whatever was asked for, and whose decoder took a map of stride 8. Here the
decoder's map is the last of stride 4, which has as many channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras

from clusterseg.data.normalisation import Normalisation
from clusterseg.errors import ClustersegError
from clusterseg.models.backbones.features import Features
from clusterseg.models.backbones.mobilenetv2 import mobilenetv2
from clusterseg.models.backbones.preprocessing import CAFFE, MINUS_ONE_TO_ONE
from clusterseg.models.backbones.resnet import resnet
from clusterseg.models.backbones.xception import xception
from clusterseg.models.heads.aspp import aspp, rates_for
from clusterseg.models.heads.classifier import auxiliary, classifier
from clusterseg.models.heads.decoder import decoder as decoded
from clusterseg.models.layers import Tensor

_BACKBONES = {
    "mobilenetv2": (mobilenetv2, MINUS_ONE_TO_ONE),
    "xception": (xception, MINUS_ONE_TO_ONE),
    "resnet50": (lambda image, stride: _of_resnet(image, 50, stride), CAFFE),
    "resnet101": (lambda image, stride: _of_resnet(image, 101, stride), CAFFE),
}
_DEFAULT = "mobilenetv2"
_STRIDES = (8, 16, 32)
_AUXILIARY_FILTERS = 256


def build(
    classes: int,
    size: tuple[int, int],
    *,
    backbone: str = _DEFAULT,
    output_stride: int = 16,
    atrous_rates: Sequence[int] | None = None,
    separable: bool = True,
    decoder: bool = True,
    dropout: float = 0.1,
    aux: bool = False,
) -> keras.Model:
    """DeepLabV3+ for any `size` (height, width); see `build_model`.

    `atrous_rates` of the pyramid: 6, 12, 18 at `output_stride` 16, by default the same places of
    the picture at 8 and 32. `separable` convolutions of 3x3 in pyramid and decoder. Without
    `decoder` the pyramid's map is classified, as DeepLab's MobileNetV2 model does it. `dropout`
    behind the pyramid. `aux`: a second output, on the encoder's map of stride 16.
    """
    _check(backbone, output_stride, dropout)
    rates = rates_for("deeplabv3+", output_stride, atrous_rates)
    image = keras.Input((*size, 3), name="image")
    features = _BACKBONES[backbone][0](image, output_stride)
    x = aspp(features.high, rates, separable=separable, dropout=dropout)
    if decoder:
        x = decoded(features.low, x, separable=separable)
    outputs = [classifier(x, classes, size)]
    if aux:
        outputs.append(
            auxiliary(features.middle, _AUXILIARY_FILTERS, classes, size, dropout=dropout)
        )
    return keras.Model(image, outputs if aux else outputs[0], name="deeplabv3_plus")


def normalisation(*, backbone: str = _DEFAULT, **_: object) -> Normalisation:
    """What the encoder's published weights were trained with."""
    return _BACKBONES[backbone][1]


def _of_resnet(image: Tensor, depth: int, output_stride: int) -> Features:
    maps = resnet(image, depth, output_stride)
    return Features(maps.conv2, maps.conv4, maps.conv5)


def _check(backbone: str, output_stride: int, dropout: float) -> None:
    if backbone not in _BACKBONES:
        raise ClustersegError(
            f"deeplabv3+: backbone must be one of {', '.join(_BACKBONES)}, not {backbone!r}",
            code="bad-option",
        )
    if output_stride not in _STRIDES:
        raise ClustersegError(
            f"deeplabv3+: output_stride must be 8, 16 or 32, not {output_stride}",
            code="bad-option",
        )
    if not 0 <= dropout < 1:
        raise ClustersegError(
            f"deeplabv3+: dropout must be at least 0 and below 1, not {dropout}", code="bad-option"
        )
