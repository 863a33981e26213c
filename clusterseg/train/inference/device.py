"""What predicting computes on: the accelerator that the job trains on where there is one.

No TensorFlow until it is called: the makers' plug-ins are loaded before it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache

from clusterseg.errors import ClustersegError


@dataclass(frozen=True)
class Prepared:
    """`threads` that TensorFlow computes with. `note`: why on the CPU, though the job trains on an
    accelerator; else None."""

    threads: int
    note: str | None


@lru_cache(maxsize=1)  # TensorFlow's threads can be set once
def prepare(accelerator: str, *, threads: int | None = None) -> Prepared:
    """Gives TensorFlow the accelerator of a job, or the CPU where that is not to be had, and
    `threads`, those of a rank if None. Once in a process, before TensorFlow has done any work."""
    from clusterseg.train.devices import prepare_tensorflow, rank_threads

    threads = threads or rank_threads(os.environ, len(os.sched_getaffinity(0)))
    note = None
    try:
        # Several processes of a host share its GPUs: consecutive ones take different ones.
        prepare_tensorflow(
            threads, deterministic=False, accelerator=accelerator, local_rank=os.getpid()
        )
    except ClustersegError as error:
        prepare_tensorflow(threads, deterministic=False)
        note = f"computed on the CPU: {error.message}"
    return Prepared(threads, note)
