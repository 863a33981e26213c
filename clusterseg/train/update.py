"""What a step does to the variables, as operations of the graph: all of it, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from clusterseg.train.state import TrainState

Update = Callable[[Sequence[tf.Tensor], tf.Tensor], None]


def build_update(optimizer: keras.optimizers.Optimizer, state: TrainState) -> Update:
    """update(gradients, learning_rate): one step of the optimizer on `state.trainable`.

    `gradients` are those of the mean loss over the global batch, equal on all ranks; so must be
    all that is computed from them, bit for bit.
    """

    def update(gradients: Sequence[tf.Tensor], learning_rate: tf.Tensor) -> None:
        optimizer.learning_rate.assign(learning_rate)
        # Keras 3.15 puts a custom gradient around what it applies, and that refuses tensors of the
        # graph outside of a branch.
        optimizer.apply([tf.identity(one) for one in gradients], state.trainable)

    return update


def guarded_update(
    update: Update,
    state: TrainState,
    gradients: Sequence[tf.Tensor],
    learning_rate: tf.Tensor,
    *,
    finite: tf.Tensor,
    before: Sequence[tf.Tensor],
    after: Sequence[tf.Tensor],
) -> None:
    """Updates weights, slots and statistics if `finite` (a scalar), else changes nothing.

    `before` are the statistics from before the forward pass, which has moved them already;
    `after` those that the step gives them. Zeros in place of the gradients would not do: momentum
    would move the weights all the same, and the iteration would count.
    """

    def apply() -> tf.Tensor:
        update(gradients, learning_rate)
        _assign(state, after)
        return tf.constant(True)

    def undo() -> tf.Tensor:
        _assign(state, before)
        return tf.constant(False)

    tf.cond(finite, apply, undo)


def all_finite(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """Whether no element is NaN or infinite, as a scalar.

    Element by element: a sum may overflow where its parts do not, and in another order on a rank
    with more cores; then the ranks would not decide alike.
    """
    each = [tf.reduce_all(tf.math.is_finite(one)) for one in tensors]
    return tf.reduce_all(tf.stack(each))


def _assign(state: TrainState, statistics: Sequence[tf.Tensor]) -> None:
    for variable, value in zip(state.statistics, statistics, strict=True):
        variable.assign(value)
