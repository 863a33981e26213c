"""From a map to logits at the input's size."""

from __future__ import annotations

from keras import layers

from clusterseg.models.layers import Dropout, Tensor, Upsample, conv_bn_relu


def classifier(x: Tensor, classes: int, size: tuple[int, int], *, name: str = "logits") -> Tensor:
    """float32 logits at `size`: a 1x1 convolution, resized bilinearly."""
    x = layers.Conv2D(classes, 1, name=f"{name}_conv")(x)
    return Upsample(size, dtype="float32", name=name)(x)


def auxiliary(
    x: Tensor,
    filters: int,
    classes: int,
    size: tuple[int, int],
    *,
    dropout: float,
    name: str = "auxiliary",
) -> Tensor:
    """The usual auxiliary output on a map inside the encoder: 3x3 convolution, and a classifier.

    As PSPNet puts it on ResNet's fourth block (Zhao et al., arXiv 1612.01105, section 4.1).
    """
    x = conv_bn_relu(x, filters, 3, name=name)
    if dropout:
        x = Dropout(dropout, name=f"{name}_dropout")(x)
    return classifier(x, classes, size, name=f"{name}_logits")
