"""Which sample is read when: pure functions of (seed, epoch) and positions.

The order of an epoch is a permutation of all samples; a global batch is a slice of it, and a
rank takes its part of that slice. So every sample is read exactly once an epoch, the order does
not depend on the number of ranks at a fixed global batch, and a resume needs two integers:
the epoch and the step in it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PADDING = -1
"""Index that fills the last global batch up; the pipeline gives it no labels."""


def epoch_order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """The order of `count` samples in `epoch` (from 0): an int64 permutation of 0 to count - 1.

    Sorted by 64-bit keys of the counter-based Philox generator keyed with (seed, epoch). Only
    its raw stream is used, which numpy promises never to change (NEP 19), unlike `permutation`:
    the order is the same with every numpy and on every platform.
    """
    if seed < 0 or epoch < 0 or count < 0:
        raise ValueError(f"seed, epoch and count can't be negative: {seed}, {epoch}, {count}")
    # As uint64 at once: a plain list with a number from 2^63 on would go through float64.
    key = np.array([seed % 2**64, epoch], np.uint64)
    keys = np.random.Philox(key=key).random_raw(count)
    return np.argsort(keys, kind="stable").astype(np.int64)


def steps_in_epoch(count: int, global_batch: int) -> int:
    """Global batches that `count` samples make; the last one may be partly padding."""
    return -(-count // global_batch)


def rank_slice(
    order: NDArray[np.int64],
    *,
    global_batch: int,
    first_step: int,
    steps: int,
    rank: int,
    world_size: int,
) -> NDArray[np.int64]:
    """What `rank` reads in `steps` steps from `first_step` (from 0, within the epoch) on.

    int64 [steps, global_batch / world_size], sample indices, PADDING where the last global batch
    has no more samples. Raises ValueError if the global batch can't be shared out equally, or
    the steps go beyond the epoch.
    """
    if global_batch % world_size:
        raise ValueError(f"{global_batch} samples can't be shared by {world_size} ranks equally")
    if not 0 <= rank < world_size:
        raise ValueError(f"there is no rank {rank} of {world_size}")
    total = steps_in_epoch(len(order), global_batch)
    if not 0 <= first_step <= first_step + steps <= total:
        raise ValueError(f"steps {first_step} to {first_step + steps} of an epoch of {total}")
    padded = np.full(total * global_batch, PADDING, np.int64)
    padded[: len(order)] = order
    share = global_batch // world_size
    by_rank = padded.reshape(total, world_size, share)
    return by_rank[first_step : first_step + steps, rank]
