"""How ranks talk: one small interface, three implementations (Horovod, mpi4py, solo).

Importing this loads neither TensorFlow nor MPI.
"""

from clusterseg.train.communicator.base import Communicator, Reduced
from clusterseg.train.communicator.connect import connect

__all__ = ["Communicator", "Reduced", "connect"]
