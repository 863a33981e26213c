"""HRNetV2 (Wang et al., arXiv 1908.07919) with object-contextual representations (Yuan et al.,
arXiv 1909.11065).

With 19 classes and a width of 48: 70,372,678 parameters, as the authors' version, without the
moving statistics; 65,859,379 without OCR.
"""

from __future__ import annotations

import keras
from keras import layers

from clusterseg.errors import ClustersegError
from clusterseg.models.backbones.hrnet import hrnet
from clusterseg.models.heads.ocr import FILTERS
from clusterseg.models.heads.ocr import ocr as contextual
from clusterseg.models.layers import Tensor, Upsample, batch_norm


def build(
    classes: int,
    size: tuple[int, int],
    *,
    width: int = 48,
    ocr: bool = True,
    dropout: float = 0.05,
    aux: bool = False,
) -> keras.Model:
    """HRNetV2 for any `size` (height, width); see `build_model`.

    `width`: channels of the finest map (the papers' 18, 32, 40, 48). `ocr`: with the context of
    objects, whose regions a coarse classifier of its own finds; it has `dropout` behind it. `aux`:
    that classifier is a second output, so that it learns from the labels as well; only with `ocr`.
    """
    _check(width, ocr, dropout, aux)
    image = keras.Input((*size, 3), name="image")
    features = hrnet(image, width)
    coarse = _classified(features, classes, "coarse" if ocr else "classifier")
    if not ocr:
        return keras.Model(image, _full(coarse, size, "logits"), name="hrnetv2")
    x = _conv_bn_relu(features, FILTERS, 3, "ocr_in")
    x = contextual(x, coarse, dropout=dropout)
    x = layers.Conv2D(classes, 1, name="logits_conv")(x)
    outputs = [_full(x, size, "logits")]
    if aux:
        outputs.append(_full(coarse, size, "auxiliary_logits"))
    return keras.Model(image, outputs if aux else outputs[0], name="hrnetv2_ocr")


def _classified(x: Tensor, classes: int, name: str) -> Tensor:
    """Logits at the size of `x`."""
    x = _conv_bn_relu(x, x.shape[-1], 1, name)
    return layers.Conv2D(classes, 1, name=f"{name}_classes_conv")(x)


def _full(x: Tensor, size: tuple[int, int], name: str) -> Tensor:
    return Upsample(size, dtype="float32", name=name)(x)


def _conv_bn_relu(x: Tensor, filters: int, kernel: int, name: str) -> Tensor:
    """With a bias before the batch norm: the published count has it."""
    x = layers.Conv2D(
        filters, kernel, padding="same", kernel_initializer="he_normal", name=f"{name}_conv"
    )(x)
    return layers.ReLU(name=f"{name}_relu")(batch_norm(x, name=f"{name}_bn"))


def _check(width: int, ocr: bool, dropout: float, aux: bool) -> None:
    if width < 1:
        raise ClustersegError(
            f"hrnetv2_ocr: width must be at least 1, not {width}", code="bad-option"
        )
    if not 0 <= dropout < 1:
        raise ClustersegError(
            f"hrnetv2_ocr: dropout must be at least 0 and below 1, not {dropout}",
            code="bad-option",
        )
    if aux and not ocr:
        raise ClustersegError(
            "hrnetv2_ocr: aux is the classifier that finds OCR's regions, and there is none with "
            "ocr: false",
            code="bad-option",
            help="leave out aux, or ocr: false",
        )
