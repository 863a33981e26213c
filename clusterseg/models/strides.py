"""The output stride of an encoder: where strides end and dilations begin. Pure.

An encoder for classification halves its map five times. Where it shall give a finer map, the last
strides are left out and what follows is dilated instead (à trous), so that every value of the
coarse map comes out unchanged and others in between: `fine[::2, ::2] == coarse`. That holds to the
pixel only if a layer that lost its stride still looks at the same places; see `pads`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class Step(NamedTuple):
    """What becomes of one stride.

    `stride` of the layer; its own `dilation`; and `after`, that of the layers that follow it.
    """

    stride: int
    dilation: int
    after: int


def stages(strides: Sequence[int], output_stride: int) -> tuple[Step, ...]:
    """The strides of an encoder, in their order, for an output `output_stride` times as small.

    Strides are kept until the output stride is reached (Chen et al., arXiv 1706.05587, section
    3.1). Raises ValueError if they don't multiply to it.
    """
    if math.prod(strides) % output_stride:
        raise ValueError(f"strides {list(strides)} can't end at a stride of {output_stride}")
    steps = []
    reached = dilation = 1
    for stride in strides:
        if reached < output_stride:
            reached *= stride
            steps.append(Step(stride, 1, 1))
        else:
            steps.append(Step(1, dilation, dilation * stride))
            dilation *= stride
    if reached != output_stride:
        raise ValueError(f"strides {list(strides)} don't stop at a stride of {output_stride}")
    return tuple(steps)


def pads(side: int, step: Step) -> tuple[int, int]:
    """Zeros before and behind a side, for 3 values that stand where TensorFlow's `SAME` puts them.

    For layers of stride 2, or that had one. With the stride, `SAME` pads an even side behind only,
    an odd one on both ends, and a layer that lost it goes on so: what counts is the side that the
    map would have, ceil(side / dilation). Symmetric padding would shift the map by a pixel.
    """
    even = -(-side // step.dilation) % 2 == 0
    before = 0 if even else 1
    # With the stride, the last value of an even side is at the first pixel behind it.
    behind = 1 if step.stride == 2 else 2 - before
    return before * step.dilation, behind * step.dilation
