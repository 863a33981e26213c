"""SegNet (Badrinarayanan, Kendall, Cipolla: arXiv 1511.00561): VGG16 and its mirror image.

Pooling remembers where each maximum was, and the decoder puts it back there. Every convolution
has a bias and a batch norm: 29,481,299 parameters with 19 classes.
"""

from __future__ import annotations

import keras

from clusterseg.data.normalisation import Normalisation
from clusterseg.models.backbones.preprocessing import CAFFE
from clusterseg.models.segnet import build_segnet


def build(classes: int, size: tuple[int, int], *, width: float = 1.0) -> keras.Model:
    """SegNet for any `size` (height, width); see `clusterseg.models.build_model`.

    `width` multiplies every filter count (multiples of 8), for small pictures and tests.
    """
    return build_segnet("segnet", classes, size, width=width, dropout=0.0)


def normalisation(**options: object) -> Normalisation:
    """That of the encoder's weights in Keras."""
    return CAFFE
