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
    `flags` are sums, `images` that of the real images. `finite`: no NaN or infinity in any of it.
    `seconds`: spent waiting for other ranks and in the reduction itself.
    """

    gradients: list[tf.Tensor]
    statistics: list[tf.Tensor]
    loss_sum: tf.Tensor
    weight_sum: tf.Tensor
    images: tf.Tensor
    flags: tf.Tensor
    finite: tf.Tensor
    seconds: tf.Tensor


class Communicator(ABC):
    """`rank` of `size` ranks in all, `local_rank` on this host; all from 0.

    `mean_gradients` and `sum_with_gradient` are for inside a tf.function, where `size` is above
    1; everything else is for the host, between steps, and is called by all ranks in the same order.
    """

    name: str
    rank: int
    size: int
    local_rank: int
    _turn: tuple[int, tf.Tensor] | None = None  # of the last small sum: its number, its result

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

        # Few large operations: at hundreds of small tensors, starting one costs more than doing it.
        vector = tf.concat(
            [
                *(tf.reshape(one, [-1]) for one in gradients),
                _flat(statistics) * images,
                tf.stack([loss_sum, weight_sum, images]),
                flags,
            ],
            0,
        )
        # What is ready only after the vector can be timed only after it.
        with tf.control_dependencies([vector]):
            begin = _now()
        with tf.control_dependencies([begin]):
            total = self._sum_in_graph(vector)
        with tf.control_dependencies([total]):
            end = _now()
        total = tf.ensure_shape(total, vector.shape)
        sizes = [_size(gradients), _size(statistics), 3, flags.shape[0]]
        all_gradients, all_statistics, sums, all_flags = tf.split(total, sizes)
        all_loss, all_weight, all_images = tf.unstack(sums)
        return Reduced(
            gradients=_like(gradients, tf.math.divide_no_nan(all_gradients, all_weight)),
            statistics=_like(statistics, tf.math.divide_no_nan(all_statistics, all_images)),
            loss_sum=all_loss,
            weight_sum=all_weight,
            images=all_images,
            flags=all_flags,
            # No sum of it all: that may overflow by itself, in another order on another rank.
            finite=tf.reduce_all(tf.math.is_finite(total)),
            seconds=tf.ensure_shape(end - begin, []),
        )

    def sum_with_gradient(self, vector: tf.Tensor) -> tf.Tensor:
        """The sum over all ranks of a small float32 vector, in the middle of a forward pass.

        Every rank's loss depends on every rank's vector, so the gradient is the sum over all
        ranks, too: that of the sum of the ranks' losses.
        """
        import tensorflow as tf

        @tf.custom_gradient  # type: ignore[untyped-decorator]
        def summed(own: tf.Tensor) -> Any:
            return self._sum_in_turn(own), self._sum_in_turn

        return summed(vector)

    def _sum_in_turn(self, vector: tf.Tensor) -> tf.Tensor:
        """One sum after the other, in the order in which the graph was built: the same on all
        ranks, where the order in which independent operations get ready is not. Two at once could
        also travel as one message, or as two, by chance."""
        import tensorflow as tf

        number, before = 0, []
        if self._turn is not None and self._turn[1].graph is tf.compat.v1.get_default_graph():
            number, before = self._turn[0] + 1, [self._turn[1]]
        with tf.control_dependencies(before):
            total = self._sum_in_graph(tf.identity(vector), name=f"part-{number}")
        total = tf.ensure_shape(total, vector.shape)
        self._turn = number, total
        return total

    @abstractmethod
    def _sum_in_graph(self, vector: tf.Tensor, name: str = "step") -> tf.Tensor:
        """The sum of a float32 vector over all ranks, as an operation of the graph. `name`: no
        two that may be under way at once have the same."""

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


def _size(tensors: Sequence[tf.Tensor]) -> int:
    return sum(one.shape.num_elements() for one in tensors)


def _flat(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """All elements in one vector; empty for no tensors."""
    import tensorflow as tf

    return tf.concat([tf.zeros([0]), *(tf.reshape(one, [-1]) for one in tensors)], 0)


def _like(tensors: Sequence[tf.Tensor], flat: tf.Tensor) -> list[tf.Tensor]:
    """The elements of `flat` in the shapes of `tensors`."""
    import tensorflow as tf

    if not tensors:
        return []
    parts = tf.split(flat, [one.shape.num_elements() for one in tensors])
    return [tf.reshape(part, one.shape) for part, one in zip(parts, tensors, strict=True)]


def _now() -> tf.Tensor:
    """Seconds, as an operation of the graph; of a steady clock, and one that may be used with
    `enable_op_determinism`, which refuses tf.timestamp (TensorFlow 2.21)."""
    import tensorflow as tf

    return tf.numpy_function(_seconds, [], tf.float64, stateful=True)


def _seconds() -> np.float64:
    return np.float64(time.perf_counter())
