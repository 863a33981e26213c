"""Computing in fewer bits: the types of the layers, and the scale of float16's loss."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import keras
import tensorflow as tf

_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}

FIRST: Final = 2.0**15
HIGHEST: Final = 2.0**24
STEPS_TO_DOUBLE: Final = 2000


@contextmanager
def policy(precision: str) -> Iterator[None]:
    """Layers built inside compute in `precision`; their variables are float32.

    Keras' policy is of the whole process: it is set back, for the next model.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(_POLICIES[precision])
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


class LossScale:
    """The factor of the loss that keeps gradients within float16, as state of the training.

    Halved by a step whose gradients overflow, down to 1; doubled after 2000 steps in a row that
    do not, up to 2^24 (Micikevicius et al. 2018, arXiv:1710.03740, section 3.2; the numbers are
    those of Keras' LossScaleOptimizer). Powers of two: what is scaled and scaled back is exact.
    """

    def __init__(self) -> None:
        self.value = keras.Variable(FIRST, trainable=False, dtype="float32", name="value")
        self._good = keras.Variable(0, trainable=False, dtype="int32", name="good_steps")

    def named(self) -> list[tuple[str, Any]]:
        """Its variables by their names in a checkpoint."""
        return [("scale/value", self.value), ("scale/good_steps", self._good)]

    def went_well(self) -> None:
        """After a finite step, in the graph."""
        good = self._good.value.read_value() + 1
        scale = self.value.value.read_value()
        double = good >= STEPS_TO_DOUBLE
        self._good.assign(tf.where(double, 0, good))
        self.value.assign(tf.where(double, tf.minimum(2 * scale, HIGHEST), scale))

    def overflowed(self) -> None:
        """After a step that was not finite, in the graph."""
        self._good.assign(tf.zeros([], tf.int32))
        self.value.assign(tf.maximum(self.value.value.read_value() / 2, 1.0))


def share(pixels: int) -> float:
    """What the *sum* of `pixels` losses is multiplied by to be as small as their mean, about.

    The scale is meant for a mean; ranks add up sums, which float16 would not hold. A power of two.
    """
    return float(2.0 ** -math.ceil(math.log2(pixels)))
