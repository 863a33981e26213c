"""VGG16 (Simonyan and Zisserman 2014, arXiv:1409.1556): 13 convolutions in five blocks.

Layers have the names of Keras' application, so that its file without the top
(`vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5`) loads by name.
"""

from __future__ import annotations

from collections.abc import Sequence

from keras import layers

from clusterseg.models.layers import Tensor, batch_norm

# Filters of the convolutions of each block.
BLOCKS: tuple[tuple[int, ...], ...] = (
    (64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)
)  # fmt: skip


def block(x: Tensor, number: int, *, width: float = 1.0, normalised: bool = False) -> Tensor:
    """The convolutions of block `number` (1 to 5), without the pooling behind it.

    Each is followed by a ReLU; if `normalised`, by a batch norm before that. `width` multiplies
    the filters (`scaled`).
    """
    return convolutions(
        x,
        BLOCKS[number - 1],
        names=[f"block{number}_conv{i}" for i in (1, 2, 3)],
        width=width,
        normalised=normalised,
    )


def convolutions(
    x: Tensor,
    filters: Sequence[int],
    *,
    names: Sequence[str],
    width: float = 1.0,
    normalised: bool = True,
) -> Tensor:
    """3x3 convolutions with bias and ReLU, one for each of `filters`, by the first of `names`."""
    for count, name in zip(filters, names, strict=False):
        x = layers.Conv2D(
            scaled(count, width), 3, padding="same", kernel_initializer="he_normal", name=name
        )(x)
        if normalised:
            x = batch_norm(x, name=f"{name}_bn")
        x = layers.ReLU(name=f"{name}_relu")(x)
    return x


def scaled(filters: int, width: float) -> int:
    """`filters` times `width`, to the nearest multiple of 8 and at least 8."""
    return max(8, round(filters * width / 8) * 8)
