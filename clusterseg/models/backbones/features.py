"""What an encoder gives a network."""

from __future__ import annotations

from typing import NamedTuple

from clusterseg.models.layers import Tensor


class Features(NamedTuple):
    """Three maps: `low` of stride 4; `middle` of stride 16, or finer if the output stride is, for
    an auxiliary output; `high` of the output stride."""

    low: Tensor
    middle: Tensor
    high: Tensor
