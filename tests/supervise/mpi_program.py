"""A rank that sums with the others, until one of them ends: `KIND:RANK` (abort, kill)."""

from __future__ import annotations

import os
import signal
import sys
import time

from mpi4py import MPI

kind, _, rank = sys.argv[1].partition(":")
comm = MPI.COMM_WORLD
comm.Set_errhandler(MPI.ERRORS_ARE_FATAL)  # as in C
for step in range(40):
    time.sleep(0.05)
    if step == 10 and comm.rank == int(rank):
        if kind == "abort":
            comm.Abort(7)
        os.kill(os.getpid(), signal.SIGKILL)
    comm.allreduce(1)
