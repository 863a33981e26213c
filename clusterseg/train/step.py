"""The graph of one training step and of one validation batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from clusterseg.losses import Loss
from clusterseg.metrics.confusion import confusion_matrix
from clusterseg.metrics.file_size import predictions_at_file_size
from clusterseg.models import main_output
from clusterseg.train.accumulating import ForwardBackward, accumulated
from clusterseg.train.communicator import Communicator
from clusterseg.train.ema import Averages
from clusterseg.train.precision import share
from clusterseg.train.state import TrainState
from clusterseg.train.update import Update, all_finite, guarded_update

_SCALARS = 7  # that a step gives beside the flags


@dataclass(frozen=True)
class StepOutcome:
    """What a step says on the host, the same on all ranks but for `comm`.

    `loss_sum` and `weight_sum` are over the global batch, `flags` sums over the ranks, `comm`
    seconds of this rank in the reduction. `finite`: no NaN or infinity in loss, gradients and
    statistics of any rank; if there is, the step has changed no variable but the generators and the
    scale of the loss. `overflowed`: it is not finite, and float16 may be the reason: the loss was
    scaled, and the next one will be by less. Such a step has the sums of no pixel, 0. `images`:
    how many all ranks together read in it. `gradient_norm`: of all gradients, before they were
    clipped; NaN where none are, or the step changed nothing.
    """

    loss_sum: float
    weight_sum: float
    finite: bool
    comm: float
    flags: NDArray[np.float64]
    images: int
    gradient_norm: float
    overflowed: bool = False


class TrainStep(Protocol):
    """One optimizer step on this rank's micro-batches, which stand one after the other.

    `images` float32 [shares × batch, height, width, 3], `labels` int32 [shares × batch, height,
    width]; `real`: how many of each micro-batch are no padding; `seeds` int64 [generators, 2];
    `flags` float32, summed over the ranks; `step`: how many steps there were before, for losses
    that change with it.
    """

    def __call__(
        self,
        images: tf.Tensor,
        labels: tf.Tensor,
        *,
        real: int | Sequence[int],
        learning_rate: float,
        seeds: NDArray[np.int64],
        flags: NDArray[np.float32],
        step: int = 0,
    ) -> StepOutcome: ...


EvaluationStep = Callable[
    [tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor],
    tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor],
]


def build_train_step(
    model: keras.Model,
    loss: Loss,
    update: Update,
    state: TrainState,
    communicator: Communicator,
    *,
    batch: int,
    size: tuple[int, int],
    flags: int,
    void: int | None = None,
    shares: int = 1,
) -> TrainStep:
    """The step for `shares` micro-batches of `batch` images of `size` (height, width) and `flags`
    flags. Where any rank sets the flag with the number `void`, the step changes nothing at all.

    After it all variables but the generators' are equal on all ranks, bit for bit.
    """
    mean = communicator.size == 1
    forward_backward = _build_forward_backward(
        model, loss, state, mean=mean and shares == 1, pixels=batch * math.prod(size)
    )
    all_shares = accumulated(forward_backward, state, shares=shares, mean=mean)
    generators = list(state.generators.values())
    signature = [
        tf.TensorSpec([shares * batch, *size, 3], tf.float32),
        tf.TensorSpec([shares * batch, *size], tf.int32),
        tf.TensorSpec([shares], tf.float32),
        tf.TensorSpec([], tf.float32),
        tf.TensorSpec([len(generators), 2], tf.int64),
        tf.TensorSpec([flags], tf.float32),
        tf.TensorSpec([], tf.float32),
    ]

    @tf.function(input_signature=signature, autograph=False)  # type: ignore[untyped-decorator]
    def graph(  # noqa: PLR0917 (an input signature knows no names)
        images: tf.Tensor,
        labels: tf.Tensor,
        real: tf.Tensor,
        learning_rate: tf.Tensor,
        seeds: tf.Tensor,
        own_flags: tf.Tensor,
        number: tf.Tensor,
    ) -> tf.Tensor:
        drawn = [] if void is None else [tf.identity(one.value) for one in generators]
        for place, generator in enumerate(generators):
            generator.assign(seeds[place])
        before = _statistics(state)  # the forward pass moves them
        # Before it is changed; 1: without a scale there is nothing to lower.
        scale = tf.constant(1.0) if state.scale is None else tf.identity(state.scale.value.value)
        if shares == 1:
            gradients, loss_sum, weight_sum = forward_backward(images, labels, number)
        else:
            gradients, loss_sum, weight_sum = all_shares(images, labels, real, number)
        real = tf.reduce_sum(real)
        after: list[tf.Tensor] | None = None
        if communicator.size == 1:
            finite = all_finite([loss_sum, *gradients, *_statistics(state)])
            seconds, sums, shown = 0.0, own_flags, real
        else:
            reduced = communicator.mean_gradients(
                gradients,
                statistics=_statistics(state),
                images=real,
                loss_sum=loss_sum,
                weight_sum=weight_sum,
                flags=own_flags,
            )
            gradients, after = reduced.gradients, reduced.statistics
            loss_sum, weight_sum = reduced.loss_sum, reduced.weight_sum
            finite, seconds, sums = reduced.finite, reduced.seconds, reduced.flags
            shown = reduced.images
        norm = guarded_update(
            update,
            state,
            gradients,
            learning_rate,
            finite=finite,
            moved=shown > 0,  # a global batch of which no picture could be read has no statistics
            before=before,
            after=after,
            void=None if void is None else sums[void] > 0,
            drawn=drawn,
        )
        # One vector, so that the host waits for the device once.
        overflowed = tf.logical_and(tf.logical_not(finite), scale > 1)
        scalars = [loss_sum, weight_sum, finite, seconds, overflowed, shown, norm]
        return tf.concat(
            [tf.stack([tf.cast(one, tf.float64) for one in scalars]), tf.cast(sums, tf.float64)],
            0,
        )

    def train_step(
        images: tf.Tensor,
        labels: tf.Tensor,
        *,
        real: int | Sequence[int],
        learning_rate: float,
        seeds: NDArray[np.int64],
        flags: NDArray[np.float32],
        step: int = 0,
    ) -> StepOutcome:
        counts = np.asarray(real, np.float32).reshape(shares)
        values: Any = graph(
            images, labels, counts, np.float32(learning_rate), seeds, flags, np.float32(step)
        ).numpy()
        scalars = (float(one) for one in values[:_SCALARS])
        loss_sum, weight_sum, finite, comm, overflowed, shown, norm = scalars
        if overflowed:
            loss_sum = weight_sum = 0.0
        return StepOutcome(
            loss_sum,
            weight_sum,
            bool(finite),
            comm,
            values[_SCALARS:],
            images=int(shown),
            gradient_norm=norm,
            overflowed=bool(overflowed),
        )

    return train_step


def _build_forward_backward(
    model: keras.Model, loss: Loss, state: TrainState, *, mean: bool, pixels: int
) -> ForwardBackward:
    """forward_backward(images, labels, step) -> (gradients, loss sum, weight sum) of one batch.

    The gradients are those of the mean of the pixel losses if `mean`, else of their sum, of
    `pixels` at most. They are computed scaled, if the state has a scale.
    """
    variables = [variable.value for variable in state.trainable]
    part = 1.0 if mean else share(pixels)

    def forward_backward(
        images: tf.Tensor, labels: tf.Tensor, step: tf.Tensor
    ) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            loss_sum, weight_sum = loss(labels, model(images, training=True), step)
            target = tf.math.divide_no_nan(loss_sum, weight_sum) if mean else loss_sum
            if state.scale is not None:
                factor = tf.stop_gradient(state.scale.value.value * part)
                target *= factor
        gradients = tape.gradient(target, variables)
        if state.scale is not None:
            gradients = [one / factor for one in gradients]
        return gradients, loss_sum, weight_sum

    return forward_backward


def _statistics(state: TrainState) -> list[tf.Tensor]:
    """Their values at this place of the graph."""
    return [tf.identity(variable.value) for variable in state.statistics]


def build_evaluation_step(
    model: keras.Model,
    loss: Loss,
    *,
    batch: int,
    size: tuple[int, int],
    classes: int,
    ignore: int | None,
    averages: Averages | None = None,
) -> EvaluationStep:
    """step(images, labels, masks, sizes) -> (confusion int64 [classes, classes], loss sum, weight
    sum, predictions int32 [batch, height, width], predictions int32 [batch, H, W]); with the
    `averages` as weights, if there are any. Auxiliary outputs of the model are left out.

    The confusion and the last predictions are at the size of the files: `masks` int32 [batch, H, W]
    with `sizes` int32 [batch, 2], as `clusterseg.data.pipeline.batches` gives them. Losses and the
    first predictions are at that of the network.
    """
    model = main_output(model)

    @tf.function(  # type: ignore[untyped-decorator]
        input_signature=[
            tf.TensorSpec([batch, *size, 3], tf.float32),
            tf.TensorSpec([batch, *size], tf.int32),
            tf.TensorSpec([batch, None, None], tf.int32),
            tf.TensorSpec([batch, 2], tf.int32),
        ],
        autograph=False,
    )
    def graph(
        images: tf.Tensor, labels: tf.Tensor, masks: tf.Tensor, sizes: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        with averages.in_place() if averages is not None else nullcontext():
            logits = model(images, training=False)
        predictions = tf.argmax(logits, axis=-1, output_type=tf.int32)
        loss_sum, weight_sum = loss(labels, logits)
        at_file_size = predictions_at_file_size(logits, sizes, tf.shape(masks)[1:])
        # Around a mask that is smaller than others of its batch there is NO_LABEL.
        confusion = confusion_matrix(masks, at_file_size, classes, ignore)
        return confusion, loss_sum, weight_sum, predictions, at_file_size

    step: EvaluationStep = graph
    return step
