"""Ranks over mpi4py. `MPI4PY_LIBMPI` in the environment says which libmpi it loads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from clusterseg.train.communicator.base import Communicator

if TYPE_CHECKING:
    import tensorflow as tf

_PIECE = 1 << 30  # bytes in one message: before MPI 4 its count is a C int


class MpiCommunicator(Communicator):
    """MPI_COMM_WORLD. The gradients leave the graph for one Allreduce a step."""

    name = "mpi"

    def __init__(self, local_rank: int) -> None:
        self._world = MPI.COMM_WORLD
        self.rank = self._world.Get_rank()
        self.size = self._world.Get_size()
        self.local_rank = local_rank

    def _sum_in_graph(self, vector: tf.Tensor, name: str = "step") -> tf.Tensor:
        import tensorflow as tf

        # numpy_function hands the tensor's own memory over and takes the result without a copy.
        # mpi4py releases the interpreter's lock while it waits.
        return tf.numpy_function(self._sum_float32, [vector], tf.float32, stateful=True)

    def _sum_float32(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        total = np.empty_like(vector)
        self._world.Allreduce(vector, total, op=MPI.SUM)
        return total

    def sum(self, array: NDArray[Any]) -> NDArray[Any]:
        total = np.empty_like(array)
        self._world.Allreduce(np.ascontiguousarray(array), total, op=MPI.SUM)
        return total

    def agree(self, flags: Sequence[int]) -> list[int]:
        largest = np.empty(len(flags), np.int64)
        self._world.Allreduce(np.asarray(flags, np.int64), largest, op=MPI.MAX)
        return [int(one) for one in largest]

    def gather(self, value: int) -> list[int]:
        values = np.empty(self.size, np.int64)
        self._world.Allgather(np.asarray([value], np.int64), values)
        return [int(one) for one in values]

    def broadcast(self, array: NDArray[Any]) -> NDArray[Any]:
        # As bytes: MPI knows no bfloat16.
        received = np.array(array, order="C")
        data = received.reshape(-1).view(np.uint8)
        for start in range(0, data.nbytes, _PIECE):
            self._world.Bcast([data[start : start + _PIECE], MPI.BYTE], root=0)
        return received

    def broadcast_text(self, text: str) -> str:
        data = text.encode() if self.rank == 0 else b""
        size = np.asarray([len(data)], np.int64)
        self._world.Bcast(size, root=0)
        received = np.empty(int(size[0]), np.uint8)
        if self.rank == 0:
            received[:] = np.frombuffer(data, np.uint8)
        self._world.Bcast([received, MPI.BYTE], root=0)
        return received.tobytes().decode()

    def barrier(self) -> None:
        self._world.Barrier()

    def close(self) -> None:
        self._world.Barrier()
        MPI.Finalize()

    def abort(self, code: int) -> None:
        if self.size > 1:
            self._world.Abort(code)
