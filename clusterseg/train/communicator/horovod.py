"""Ranks over Horovod for the gradients, and over mpi4py for everything between steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clusterseg.errors import ClustersegError
from clusterseg.train.communicator.mpi import MpiCommunicator

if TYPE_CHECKING:
    import tensorflow as tf


class HorovodCommunicator(MpiCommunicator):
    """Horovod's all-reduce inside the graph; both talk through the same MPI_COMM_WORLD.

    Not `hvd.DistributedOptimizer`: with Keras 3 it trains without error and never reduces.
    """

    name = "horovod"

    def __init__(self, local_rank: int) -> None:
        super().__init__(local_rank)  # MPI first: hvd.init() then joins its world
        import horovod.tensorflow as hvd

        hvd.init()
        if (hvd.rank(), hvd.size()) != (self.rank, self.size):
            raise ClustersegError(
                f"Horovod sees rank {hvd.rank()} of {hvd.size()}, MPI rank {self.rank} of "
                f"{self.size}: it was built for another MPI than that of the launcher",
                code="communicator",
                help="build Horovod for this MPI (make horovod), or set train.communicator: mpi",
            )
        self._hvd = hvd

    def _sum_in_graph(self, vector: tf.Tensor, name: str = "step") -> tf.Tensor:
        return self._hvd.allreduce(vector, op=self._hvd.Sum, name=name)

    def close(self) -> None:
        self._world.Barrier()
        self._hvd.shutdown()
        super().close()
