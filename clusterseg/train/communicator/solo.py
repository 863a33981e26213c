"""One rank alone: nothing to agree on, no MPI loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from clusterseg.train.communicator.base import Communicator

if TYPE_CHECKING:
    import tensorflow as tf


class SoloCommunicator(Communicator):
    """Rank 0 of 1."""

    name = "solo"
    rank = 0
    size = 1
    local_rank = 0

    def _sum_in_graph(self, vector: tf.Tensor, name: str = "step") -> tf.Tensor:
        return vector

    def sum(self, array: NDArray[Any]) -> NDArray[Any]:
        return array

    def agree(self, flags: Sequence[int]) -> list[int]:
        return list(flags)

    def gather(self, value: int) -> list[int]:
        return [value]

    def broadcast(self, array: NDArray[Any]) -> NDArray[Any]:
        return array

    def broadcast_text(self, text: str) -> str:
        return text

    def barrier(self) -> None:
        pass

    def close(self) -> None:
        pass

    def abort(self, code: int) -> None:
        pass
