"""Files whose layers have other names than ours, or are put together in another way.

Each module knows one family of files by the names in it and gives them the names of our layers.
Nothing is read for that; tensors are changed, where they must be, when they are read.
"""

from __future__ import annotations

from clusterseg.train.initial_weights.adapters import (
    keras_resnet,
    keras_xception,
    seed_deeplab,
    seed_fastscnn,
    slim_resnet,
)
from clusterseg.train.initial_weights.source import Source

_ADAPTERS = (
    slim_resnet.adapt,
    keras_resnet.adapt,
    keras_xception.adapt,
    seed_deeplab.adapt,
    seed_fastscnn.adapt,
)


def adapt(source: Source) -> Source:
    """The source under our names, if some family's adapter knows it, else as it is.

    A file may belong to two: the ImageSegmentation seed's DeepLabV3+ holds Keras' Xception.
    """
    for adapter in _ADAPTERS:
        source = adapter(source) or source
    return source
