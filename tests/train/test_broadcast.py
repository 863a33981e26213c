"""Large messages go in pieces that MPI can count."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.train.runs import BIN

pytestmark = pytest.mark.slow

BROADCAST = """
import sys
import numpy as np
from clusterseg.train.communicator import mpi
assert mpi._PIECE <= np.iinfo(np.int32).max
mpi._PIECE = int(sys.argv[1])
class World:
    largest = 0
    def __init__(self, world): self._world = world
    def __getattr__(self, name): return getattr(self._world, name)
    def Bcast(self, message, root):
        World.largest = max(World.largest, message[0].nbytes)
        self._world.Bcast(message, root=root)
one = mpi.MpiCommunicator(0)
one._world = World(one._world)
for size in (0, 1, 999, 1000, 1001, 12345):
    for kind in (np.uint8, np.float64):
        wanted = np.random.default_rng(size).integers(0, 200, (size, 2)).astype(kind)
        mine = wanted if one.rank == 0 else np.zeros_like(wanted)
        got = one.broadcast(mine)
        assert got.dtype == kind and np.array_equal(got, wanted), (size, kind)
print("largest", World.largest, flush=True)
one.close()
"""


@pytest.mark.parametrize(("piece", "largest"), [(1000, 1000), (1 << 30, 12345 * 2 * 8)])
def test_a_broadcast_goes_in_pieces_and_arrives_whole(
    piece: int, largest: int, tmp_path: Path
) -> None:
    """The second is the twin: without a limit the whole is one message."""
    mpirun = [str(BIN / "mpirun"), "-np", "2", "--map-by", ":OVERSUBSCRIBE", "--bind-to", "none"]
    root = ["--allow-run-as-root"] if os.getuid() == 0 else []
    done = subprocess.run(
        [*mpirun, *root, sys.executable, "-c", BROADCAST, str(piece)],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"largest {largest}\n") == 2
