"""Lets a process of its own go through an HDF5 file before a rank does.

The HDF5 library (1.14.6) turns round for ever on some damaged files, e.g. where an object of a
global heap claims another size, and may crash on others. Neither may happen to a rank, which
could not say why any more.
"""

from __future__ import annotations

import math
import resource
import signal
import subprocess
import sys
from pathlib import Path

from clusterseg.errors import ClustersegError
from clusterseg.train.initial_weights.hdf5 import open_hdf5
from clusterseg.train.initial_weights.source import bad_weights

_SECONDS = 10  # of processor time, however busy the host is
_BYTES_A_SECOND = 20_000_000  # and for its size; reading a sound file is ten times as fast
_LARGEST = 1 << 28  # bytes of a tensor that is tried; a file may declare any size
_STOPS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, signal.SIGHUP)


def survive(path: Path) -> None:
    """Raises ClustersegError if reading the file ends a process, or does not end.

    What else is wrong with it is left to the caller, who reads it again.
    """
    argv = [sys.executable, "-P", "-m", __name__, str(path)]
    null = subprocess.DEVNULL
    # Slurm sends a stop to every process of the step: blocked here, blocked in the child for good.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    try:
        child = subprocess.Popen(argv, stdin=null, stdout=null, stderr=null)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    code = child.wait()
    if code < 0:
        raise bad_weights(
            path,
            f"is damaged: the HDF5 library does not get through it (signal {-code})",
            "write the file anew",
        )


def _try(path: Path) -> None:
    seconds = _SECONDS + path.stat().st_size // _BYTES_A_SECOND
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    with open_hdf5(path) as source:
        for item in source.items:
            if math.prod(item.shape) * 8 <= _LARGEST:
                source.read(item.name)


if __name__ == "__main__":
    try:
        _try(Path(sys.argv[1]))
    except (ClustersegError, OSError):
        sys.exit(1)
