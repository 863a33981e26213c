"""What a step does to the variables, as operations of the graph: all of it, or nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from clusterseg.models.sums import ordered_sum
from clusterseg.spec.model import OptimizerSpec
from clusterseg.train.optimizers import is_kernel
from clusterseg.train.state import TrainState

Update = Callable[[Sequence[tf.Tensor], tf.Tensor], tf.Tensor | None]


def build_update(
    optimizer: keras.optimizers.Optimizer, state: TrainState, spec: OptimizerSpec
) -> Update:
    """update(gradients, learning_rate): one step of the optimizer on `state.trainable`.

    `gradients` are those of the mean loss over the global batch, equal on all ranks; so must be
    all that is computed from them, bit for bit. They are clipped to a global norm first, so that
    `clip_norm` means the loss. Weight decay acts on kernels alone: of `adamw` decoupled from the
    gradient, times the learning rate (Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2);
    of all others as the gradient of an L2 penalty, decay / 2 x the sum of squares.

    It returns the gradients' global norm before they were clipped, a scalar; None where nothing is
    clipped, so that no norm is computed.
    """
    variables = state.trainable
    kernels = [is_kernel(one) for one in variables]
    decay = spec.weight_decay

    def update(gradients: Sequence[tf.Tensor], learning_rate: tf.Tensor) -> tf.Tensor | None:
        # Keras 3.15 puts a custom gradient around what it applies, and that refuses tensors of the
        # graph outside of a branch.
        parts = [tf.identity(one) for one in gradients]
        norm = None
        if spec.clip_norm is not None:
            norm = global_norm(parts)
            parts = clipped(parts, norm, spec.clip_norm)
        optimizer.learning_rate.assign(learning_rate)
        if decay and spec.name == "adamw":
            for variable in (one for one, kernel in zip(variables, kernels, strict=True) if kernel):
                variable.assign(variable.value - learning_rate * decay * variable.value)
        elif decay:
            parts = [
                part + decay * variable.value if kernel else part
                for part, variable, kernel in zip(parts, variables, kernels, strict=True)
            ]
        optimizer.apply(parts, variables)
        return norm

    return update


def global_norm(gradients: Sequence[tf.Tensor]) -> tf.Tensor:
    """The square root of the sum of all their squares, a float64 scalar.

    Summed in float64, where squares of float32 can't overflow, and in an order that does not
    depend on the number of threads: ranks with more cores must not get another one.
    """
    squares = tf.stack([ordered_sum(tf.square(tf.cast(one, tf.float64))) for one in gradients])
    return tf.sqrt(ordered_sum(squares))


def clipped(gradients: Sequence[tf.Tensor], norm: tf.Tensor, most: float) -> list[tf.Tensor]:
    """All of them times `most` / their global `norm`, where that is above `most`."""
    factor = tf.cast(most / tf.maximum(norm, most), tf.float32)
    return [one * factor for one in gradients]


def guarded_update(
    update: Update,
    state: TrainState,
    gradients: Sequence[tf.Tensor],
    learning_rate: tf.Tensor,
    *,
    finite: tf.Tensor,
    moved: tf.Tensor,
    before: Sequence[tf.Tensor],
    after: Sequence[tf.Tensor] | None,
    void: tf.Tensor | None = None,
    drawn: Sequence[tf.Tensor] = (),
) -> tf.Tensor:
    """Updates weights, slots and averages if `finite` (a scalar), and the statistics if `moved` as
    well; else nothing.

    `before` are the statistics from before the forward pass, which has moved them already;
    `after` those that the step gives them, None if they are those of the forward pass. Zeros in
    place of the gradients would not do: momentum would move the weights all the same, and the
    iteration would count. The scale of float16's loss hears of both. Returns the gradients' global
    norm, float64; NaN if nothing is updated or none was computed.

    A step that is `void` (a scalar) is as if it had not been: the scale hears nothing of it, and
    the generators get back what they were before, `drawn`.
    """
    unknown = tf.constant(math.nan, tf.float64)

    def assign(statistics: Sequence[tf.Tensor] | None) -> tf.Tensor:
        for variable, value in zip(state.statistics, statistics or (), strict=bool(statistics)):
            variable.assign(value)
        return tf.constant(True)

    def apply() -> tf.Tensor:
        norm = update(gradients, learning_rate)
        if state.averages is not None:
            state.averages.follow()
        if state.scale is not None:
            state.scale.went_well()
        return unknown if norm is None else norm

    def lower() -> tf.Tensor:
        if state.scale is not None:
            state.scale.overflowed()
        return unknown

    def forget() -> tf.Tensor:
        for generator, value in zip(state.generators.values(), drawn, strict=True):
            generator.assign(value)
        return unknown

    def undo() -> tf.Tensor:
        return lower() if void is None else tf.cond(void, forget, lower)

    counts = finite if void is None else tf.logical_and(finite, tf.logical_not(void))
    # Branches of their own: each tensor that one takes in costs every step an operation.
    if state.statistics:  # first: the averages follow them
        tf.cond(tf.logical_and(counts, moved), lambda: assign(after), lambda: assign(before))
    return tf.cond(counts, apply, undo)


_SMALL = 2**14  # elements


def all_finite(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """Whether no element of these float32 tensors is NaN or infinite, as a scalar.

    Element by element: a sum may overflow where its parts do not, and in another order on a rank
    with more cores; then the ranks would not decide alike. Each times zero is 0, or NaN.
    """
    flat = [tf.reshape(one, [-1]) for one in tensors]
    # A zero that TensorFlow does not know of: it takes x · 0 for 0. (NaN would do as well.)
    zero = tf.minimum(tf.abs(flat[0][0]), 0.0)
    # Hundreds of small tensors are looked at as one: to start an operation costs more.
    parts = [one for one in flat if one.shape[0] > _SMALL]
    parts.append(tf.concat([tf.zeros([0]), *(one for one in flat if one.shape[0] <= _SMALL)], 0))
    return tf.equal(tf.add_n([tf.reduce_sum(one * zero) for one in parts]), 0.0)
