"""Bayesian SegNet (Kendall, Badrinarayanan, Cipolla: arXiv 1511.02680): SegNet with dropout.

Dropped channels at prediction too, drawn several times, tell how sure the network is
(`clusterseg.models.monte_carlo`). As many parameters as SegNet has.
"""

from __future__ import annotations

import keras

from clusterseg.data.normalisation import Normalisation
from clusterseg.errors import ClustersegError
from clusterseg.models.backbones.preprocessing import CAFFE
from clusterseg.models.segnet import build_segnet


def build(
    classes: int, size: tuple[int, int], *, width: float = 1.0, dropout: float = 0.5
) -> keras.Model:
    """Bayesian SegNet for any `size` (height, width); see `clusterseg.models.build_model`.

    `width` as that of segnet; `dropout` is what each of the six dropouts around the middle drops.
    """
    if not 0 < dropout < 1:
        raise ClustersegError(
            f"bayes_segnet: dropout must be above 0 and below 1, not {dropout}",
            code="bad-option",
            help="without dropout it is segnet",
        )
    return build_segnet("bayes_segnet", classes, size, width=width, dropout=dropout)


def normalisation(**options: object) -> Normalisation:
    """That of the encoder's weights in Keras."""
    return CAFFE
