"""Several micro-batches in one step: what they give is added up, as by as many ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from clusterseg.train.state import TrainState

ForwardBackward = Callable[
    [tf.Tensor, tf.Tensor, tf.Tensor], tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]
]
Accumulated = Callable[
    [tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor], tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]
]


def accumulated(
    forward_backward: ForwardBackward, state: TrainState, *, shares: int, mean: bool
) -> Accumulated:
    """run(images, labels, real, step) -> (gradients, loss sum, weight sum) over `shares`
    micro-batches.

    `images` and `labels` hold the micro-batches one after the other, `real` (float32 [shares])
    counts the pictures of each that are no padding. `forward_backward` must give the gradients of
    the *sum* of the pixel losses; `mean` divides what comes out by the sum of their weights.

    All of them begin with the same moving statistics, and the mean of what they make of these,
    weighted by `real`, is what is left: just what one rank for each would come to.
    """

    def run(
        images: tf.Tensor, labels: tf.Tensor, real: tf.Tensor, step: tf.Tensor
    ) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]:
        pieces = [
            tf.reshape(one, [shares, one.shape[0] // shares, *one.shape[1:]])
            for one in (images, labels)
        ]
        before = [tf.identity(one.value) for one in state.statistics]
        gradients = [tf.zeros(one.shape) for one in state.trainable]
        moved = [tf.zeros_like(one) for one in before]

        def body(
            number: tf.Tensor, sums: list[tf.Tensor], statistics: list[tf.Tensor]
        ) -> tuple[tf.Tensor, list[tf.Tensor], list[tf.Tensor]]:
            _assign(state, before)
            own_images, own_labels = (one[number] for one in pieces)
            parts, loss_sum, weight_sum = forward_backward(own_images, own_labels, step)
            found = [tf.identity(one.value) for one in state.statistics]
            weight = real[number]
            return (
                number + 1,
                _added(sums, [*parts, loss_sum, weight_sum]),
                _added(statistics, [one * weight for one in found]),
            )

        _, sums, moved = tf.while_loop(
            lambda number, sums, statistics: number < shares,
            body,
            (tf.constant(0), [*gradients, tf.zeros([]), tf.zeros([])], moved),
            parallel_iterations=1,  # each moves the statistics and the generators
        )
        shown = tf.reduce_sum(real)
        _assign(state, [tf.math.divide_no_nan(one, shown) for one in moved])
        *gradients, loss_sum, weight_sum = sums
        if mean:
            gradients = [tf.math.divide_no_nan(one, weight_sum) for one in gradients]
        return gradients, loss_sum, weight_sum

    return run


def _assign(state: TrainState, values: Sequence[tf.Tensor]) -> None:
    for variable, value in zip(state.statistics, values, strict=True):
        variable.assign(value)


def _added(sums: Sequence[tf.Tensor], parts: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    return [one + part for one, part in zip(sums, parts, strict=True)]
