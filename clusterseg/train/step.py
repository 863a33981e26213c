"""The graph of one training step and of one validation batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from clusterseg.losses import Loss
from clusterseg.metrics.confusion import confusion_matrix
from clusterseg.train.communicator import Communicator
from clusterseg.train.state import TrainState


@dataclass(frozen=True)
class StepOutcome:
    """What a step says on the host, the same on all ranks but for `comm`.

    `loss_sum` and `weight_sum` are over the global batch, `flags` sums over the ranks, `comm`
    seconds of this rank in the reduction. `finite`: no NaN or infinity in the loss, nor, with
    several ranks, in the gradients; alone, those show in the loss of the next step, and `Saver`
    writes no such weights.
    """

    loss_sum: float
    weight_sum: float
    finite: bool
    comm: float
    flags: NDArray[np.float64]


class TrainStep(Protocol):
    """One optimizer step on this rank's batch.

    `images` float32 [batch, height, width, 3], `labels` int32 [batch, height, width], of which
    `real` are no padding; `seeds` int64 [generators, 2]; `flags` float32, summed over the ranks.
    """

    def __call__(
        self,
        images: tf.Tensor,
        labels: tf.Tensor,
        *,
        real: int,
        learning_rate: float,
        seeds: NDArray[np.int64],
        flags: NDArray[np.float32],
    ) -> StepOutcome: ...


EvaluationStep = Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor]]


def build_train_step(
    model: keras.Model,
    loss: Loss,
    optimizer: keras.optimizers.Optimizer,
    state: TrainState,
    communicator: Communicator,
    *,
    batch: int,
    size: tuple[int, int],
    flags: int,
) -> TrainStep:
    """The step for batches of `batch` images of `size` (height, width) and `flags` flags.

    After it all variables but the generators' are equal on all ranks, bit for bit.
    """
    generators = list(state.generators.values())
    signature = [
        tf.TensorSpec([batch, *size, 3], tf.float32),
        tf.TensorSpec([batch, *size], tf.int32),
        tf.TensorSpec([], tf.float32),
        tf.TensorSpec([], tf.float32),
        tf.TensorSpec([len(generators), 2], tf.int64),
        tf.TensorSpec([flags], tf.float32),
    ]

    @tf.function(input_signature=signature, autograph=False)  # type: ignore[untyped-decorator]
    def graph(  # noqa: PLR0917 (an input signature knows no names)
        images: tf.Tensor,
        labels: tf.Tensor,
        real: tf.Tensor,
        learning_rate: tf.Tensor,
        seeds: tf.Tensor,
        own_flags: tf.Tensor,
    ) -> tf.Tensor:
        for number, generator in enumerate(generators):
            generator.assign(seeds[number])
        before = [tf.identity(variable.value) for variable in state.statistics]
        with tf.GradientTape() as tape:
            loss_sum, weight_sum = loss(labels, model(images, training=True))
            alone = communicator.size == 1
            target = tf.math.divide_no_nan(loss_sum, weight_sum) if alone else loss_sum
        gradients = tape.gradient(target, [variable.value for variable in state.trainable])
        if alone:
            finite, seconds, sums = tf.math.is_finite(loss_sum), 0.0, own_flags
            shown = real
        else:
            reduced = communicator.mean_gradients(
                gradients,
                # Read after the forward pass, which has moved them.
                statistics=[tf.identity(variable.value) for variable in state.statistics],
                images=real,
                loss_sum=loss_sum,
                weight_sum=weight_sum,
                flags=own_flags,
            )
            gradients, loss_sum, weight_sum = (
                reduced.gradients,
                reduced.loss_sum,
                reduced.weight_sum,
            )
            finite, seconds, sums = reduced.finite, reduced.seconds, reduced.flags
            shown = reduced.images
            for variable, mean in zip(state.statistics, reduced.statistics, strict=True):
                variable.assign(mean)
        # A global batch of which no picture could be read has no statistics.
        tf.cond(shown > 0, lambda: 0, lambda: _set(state.statistics, before))
        optimizer.learning_rate.assign(learning_rate)
        optimizer.apply(gradients, state.trainable)
        # One vector, so that the host waits for the device once.
        scalars = [loss_sum, weight_sum, finite, seconds]
        return tf.concat(
            [tf.stack([tf.cast(one, tf.float64) for one in scalars]), tf.cast(sums, tf.float64)],
            0,
        )

    def step(
        images: tf.Tensor,
        labels: tf.Tensor,
        *,
        real: int,
        learning_rate: float,
        seeds: NDArray[np.int64],
        flags: NDArray[np.float32],
    ) -> StepOutcome:
        scalars = (np.float32(real), np.float32(learning_rate))
        values: Any = graph(images, labels, *scalars, seeds, flags).numpy()
        loss_sum, weight_sum, finite, comm = (float(one) for one in values[:4])
        return StepOutcome(loss_sum, weight_sum, bool(finite), comm, values[4:])

    return step


def _set(variables: Sequence[Any], values: Sequence[tf.Tensor]) -> int:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return 0


def build_evaluation_step(
    model: keras.Model,
    loss: Loss,
    *,
    batch: int,
    size: tuple[int, int],
    classes: int,
    ignore: int | None,
) -> EvaluationStep:
    """step(images, labels) -> (confusion int64 [classes, classes], loss sum, weight sum)."""

    @tf.function(  # type: ignore[untyped-decorator]
        input_signature=[
            tf.TensorSpec([batch, *size, 3], tf.float32),
            tf.TensorSpec([batch, *size], tf.int32),
        ],
        autograph=False,
    )
    def graph(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        logits = model(images, training=False)
        predictions = tf.argmax(logits, axis=-1, output_type=tf.int32)
        loss_sum, weight_sum = loss(labels, logits)
        return confusion_matrix(labels, predictions, classes, ignore), loss_sum, weight_sum

    step: EvaluationStep = graph
    return step
