"""Averaged weights: what is validated, evaluated and drawn while the training goes on with its own.

They are variables of the state, so a checkpoint has both, and ranks compare both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


class Averages:
    """An exponential moving average of each of `variables`, over the steps that changed them.

    After step n, average += (1 - d) x (value - average), with d the smaller of `decay` and
    (1 + n) / (10 + n): else the values drawn at first would stay in it for some 1 / (1 - decay)
    steps (as `num_updates` of TensorFlow's ExponentialMovingAverage). `steps` counts them: the
    optimizer's iteration.
    """

    def __init__(self, variables: Sequence[Any], decay: float, steps: Any) -> None:
        self._variables = list(variables)
        self._averages = [
            keras.Variable(one.numpy(), trainable=False, dtype="float32", name="average")
            for one in self._variables
        ]
        self._decay = decay
        self._steps = steps

    def named(self) -> list[tuple[str, Any]]:
        """The averages by their names in a checkpoint: `ema/` and the path of the variable."""
        return [
            (f"ema/{variable.path}", average)
            for variable, average in zip(self._variables, self._averages, strict=True)
        ]

    def start(self) -> None:
        """Makes them equal to the variables; on the host."""
        for variable, average in zip(self._variables, self._averages, strict=True):
            average.assign(variable.numpy())

    def follow(self) -> None:
        """One step, in the graph, after the variables and the iteration got their new values."""
        done = tf.cast(self._steps.value, tf.float32)
        rate = 1 - tf.minimum(self._decay, (1 + done) / (10 + done))
        for variable, average in zip(self._variables, self._averages, strict=True):
            now = average.value.read_value()
            average.assign(now + rate * (variable.value - now))

    def in_place(self) -> keras.StatelessScope:
        """A context in which the model computes with the averages in place of its variables.

        Nothing is assigned, so no stop and no error can leave them there.
        """
        return keras.StatelessScope(
            state_mapping=[
                (variable, tf.convert_to_tensor(average.value))
                for variable, average in zip(self._variables, self._averages, strict=True)
            ]
        )
