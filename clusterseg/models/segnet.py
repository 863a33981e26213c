"""What SegNet and Bayesian SegNet have in common."""

from __future__ import annotations

import keras
from keras import layers

from clusterseg.models.backbones.vgg16 import block, convolutions
from clusterseg.models.checks import check_width
from clusterseg.models.layers import Dropout
from clusterseg.models.unpool import MaxPoolWithIndices, MaxUnpool

# Filters of the decoder's convolutions, from the deepest level up: each level ends with as many as
# the encoder's next one has, whose places its unpooling takes.
_DECODER = {
    5: (512, 512, 512), 4: (512, 512, 256), 3: (256, 256, 128), 2: (128, 64), 1: (64, 64)
}  # fmt: skip
# Where Bayesian SegNet drops (its figure 1): behind these poolings, and before these unpoolings.
_DROPPED_DOWN = (3, 4, 5)
_DROPPED_UP = (4, 3, 2)


def build_segnet(
    name: str, classes: int, size: tuple[int, int], *, width: float, dropout: float
) -> keras.Model:
    """The network `name`; any size: an odd map is pooled with its edge and unpooled to its own
    size. Without the response normalisation that the paper's prototype has at the input, since
    pictures are normalised here."""
    check_width(name, width)
    image = keras.Input((*size, 3), name="image")
    x = image
    places, sizes = {}, {}
    for level in range(1, 6):
        x = block(x, level, width=width, normalised=True)
        sizes[level] = x.shape[1:3]
        x, places[level] = MaxPoolWithIndices(name=f"block{level}_pool")(x)
        if dropout and level in _DROPPED_DOWN:
            x = Dropout(dropout, name=f"block{level}_dropout")(x)
    for level, filters in _DECODER.items():
        if dropout and level in _DROPPED_UP:
            x = Dropout(dropout, name=f"up{level}_dropout")(x)
        x = MaxUnpool(sizes[level], name=f"up{level}_unpool")([x, places[level]])
        x = convolutions(x, filters, names=[f"up{level}_conv{i}" for i in (1, 2, 3)], width=width)
    logits = layers.Conv2D(classes, 1, dtype="float32", name="logits")(x)
    return keras.Model(image, logits, name=name)
