"""The communicator: what the trainer needs from other ranks, and nothing more."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import tensorflow as tf


@dataclass(frozen=True)
class Reduced:
    """What a step agreed on, equal bit for bit on all ranks; tensors inside a tf.function.

    `gradients` are those of the mean loss over the global batch's valid pixels, `statistics`
    the means of the ranks' (batch-norm) statistics. `loss_sum`, `weight_sum` (scalars) and
    `flags` are sums. `finite`: no NaN or infinity in any of it. `seconds`: spent waiting for
    other ranks and in the reduction itself.
    """

    gradients: list[tf.Tensor]
    statistics: list[tf.Tensor]
    loss_sum: tf.Tensor
    weight_sum: tf.Tensor
    flags: tf.Tensor
    finite: tf.Tensor
    seconds: tf.Tensor


class Communicator(ABC):
    """`rank` of `size` ranks in all, `local_rank` on this host; all from 0.

    `mean_gradients` is for inside a tf.function; everything else is for the host, between
    steps, and is called by all ranks in the same order.
    """

    name: str
    rank: int
    size: int
    local_rank: int

    def mean_gradients(
        self,
        gradients: Sequence[tf.Tensor],
        *,
        statistics: Sequence[tf.Tensor],
        images: tf.Tensor,
        loss_sum: tf.Tensor,
        weight_sum: tf.Tensor,
        flags: tf.Tensor,
    ) -> Reduced:
        """One reduction a step, over everything that ranks must agree on.

        `gradients` are those of this rank's *sum* of pixel losses: divided by the global number
        of valid pixels they give the true mean, however unevenly the pixels are spread. A mean
        of the ranks' means would not. `statistics` are weighted by `images`, the number of
        real (not padded) images of this rank. `flags` (float32 vector) are summed.

        All of it travels as one float32 vector: a group whose make-up depended on timing would
        sum in another order on another run (a ring does from three ranks on).
        """
        import tensorflow as tf

        tail = tf.concat([tf.stack([loss_sum, weight_sum, images]), flags], 0)
        if self.size == 1:
            sums = [tf.reduce_sum(one) for one in [*gradients, *statistics, tail]]
            return Reduced(
                gradients=[tf.math.divide_no_nan(one, weight_sum) for one in gradients],
                statistics=list(statistics),
                loss_sum=loss_sum,
                weight_sum=weight_sum,
                flags=flags,
                finite=tf.math.is_finite(tf.add_n(sums)),
                seconds=tf.constant(0.0, tf.float64),
            )

        tensors = [*gradients, *(one * images for one in statistics), tail]
        sizes = [one.shape.num_elements() for one in tensors]
        vector = tf.concat([tf.reshape(one, [-1]) for one in tensors], 0)
        # What is ready only after the vector can be timed only after it.
        with tf.control_dependencies([vector]):
            begin = _now()
        with tf.control_dependencies([begin]):
            total = self._sum_in_graph(vector)
        with tf.control_dependencies([total]):
            end = _now()
        total.set_shape(vector.shape)
        *parts, tail = tf.split(total, sizes)
        all_loss, all_weight, all_images = tf.unstack(tail[:3])
        shaped = [tf.reshape(part, one.shape) for part, one in zip(parts, tensors, strict=False)]
        count = len(gradients)
        return Reduced(
            gradients=[tf.math.divide_no_nan(one, all_weight) for one in shaped[:count]],
            statistics=[one / all_images for one in shaped[count:]],
            loss_sum=all_loss,
            weight_sum=all_weight,
            flags=tail[3:],
            finite=tf.math.is_finite(tf.reduce_sum(total)),  # NaN and infinity survive a sum
            seconds=tf.ensure_shape(end - begin, []),
        )

    @abstractmethod
    def _sum_in_graph(self, vector: tf.Tensor) -> tf.Tensor:
        """The sum of a float32 vector over all ranks, as an operation of the graph."""

    @abstractmethod
    def sum(self, array: NDArray[Any]) -> NDArray[Any]:
        """Element-wise sum over all ranks, of int64 or float64."""

    @abstractmethod
    def agree(self, flags: Sequence[int]) -> list[int]:
        """Element-wise maximum over all ranks."""

    @abstractmethod
    def gather(self, value: int) -> list[int]:
        """Every rank's value, by rank, on every rank."""

    @abstractmethod
    def broadcast(self, array: NDArray[Any]) -> NDArray[Any]:
        """Rank 0's array; the other ranks give one of the same shape and type."""

    @abstractmethod
    def broadcast_text(self, text: str) -> str:
        """Rank 0's text."""

    @abstractmethod
    def barrier(self) -> None:
        """Returns when all ranks are here."""

    @abstractmethod
    def close(self) -> None:
        """The last call, by all ranks; they may end with any exit code afterwards."""

    @abstractmethod
    def abort(self, code: int) -> None:
        """Ends all ranks at once with `code`; without others it just returns."""


def _now() -> tf.Tensor:
    """Seconds, as an operation of the graph; of a steady clock, and one that may be used with
    `enable_op_determinism`, which refuses tf.timestamp (TensorFlow 2.21)."""
    import tensorflow as tf

    return tf.numpy_function(_seconds, [], tf.float64, stateful=True)


def _seconds() -> np.float64:
    return np.float64(time.perf_counter())
