"""Batch norm's moving statistics, of the weights as they are."""

from __future__ import annotations

from collections.abc import Callable

import keras

_MOMENTUM, _PASSES = 0.5, 8  # 1/256 is left of what they were before


def settle(model: keras.Model, see: Callable[[], object]) -> None:
    """Eight forward passes by `see`, which has not been called yet: it may be traced only once
    the momentum is low. In a deep network the statistics of the last layers are otherwise long
    those of weights that were, or of no picture."""
    norms = [one for one in model.layers if isinstance(one, keras.layers.BatchNormalization)]
    before = [one.momentum for one in norms]
    for one in norms:
        one.momentum = _MOMENTUM
    for _ in range(_PASSES):
        see()
    for one, momentum in zip(norms, before, strict=True):
        one.momentum = momentum
