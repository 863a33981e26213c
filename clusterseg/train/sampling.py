"""Which samples a rank reads in which step of an epoch, in training and in validation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clusterseg.data.order import epoch_order, rank_slice, steps_in_epoch
from clusterseg.errors import ClustersegError, ExitCode


def epoch_steps(asked: int | None, count: int, global_batch: int) -> int:
    """Optimizer steps an epoch: `asked`, else as many as the whole set makes.

    The last global batch of the whole set may be partly padding. Raises ClustersegError if
    `asked` is more than that: an epoch reads no sample twice.
    """
    whole = steps_in_epoch(count, global_batch)
    if asked is not None and asked > whole:
        raise ClustersegError(
            f"train.steps_per_epoch is {asked}, but {count} samples make {whole} steps of "
            f"{global_batch}",
            code="steps-per-epoch",
            help=f"give at most {whole}, or null for the whole set, and more epochs instead",
            exit_code=ExitCode.FAILED,
        )
    return whole if asked is None else asked


def training_indices(
    *,
    seed: int,
    epoch: int,
    count: int,
    batch: int,
    first_step: int,
    steps: int,
    rank: int,
    world_size: int,
) -> NDArray[np.int64]:
    """int64 [steps - first_step, batch]: this rank's samples from `first_step` on; -1 pads."""
    return rank_slice(
        epoch_order(seed, epoch, count),
        global_batch=batch * world_size,
        first_step=first_step,
        steps=steps - first_step,
        rank=rank,
        world_size=world_size,
    )


def validation_indices(*, count: int, batch: int, rank: int, world_size: int) -> NDArray[np.int64]:
    """int64 [steps, batch]: this rank's share of all samples, in file order; -1 pads.

    All ranks have the same number of steps, so none waits for one that the others don't take.
    """
    return rank_slice(
        np.arange(count, dtype=np.int64),
        global_batch=batch * world_size,
        first_step=0,
        steps=steps_in_epoch(count, batch * world_size),
        rank=rank,
        world_size=world_size,
    )


def images_in_steps(
    first: int, last: int, *, steps_per_epoch: int, count: int, global_batch: int
) -> int:
    """Images, without padding, that all ranks read in the steps `first` to `last` (from 1, over
    the whole run)."""
    in_epoch = ((step - 1) % steps_per_epoch for step in range(first, last + 1))
    return sum(max(0, min(global_batch, count - global_batch * step)) for step in in_epoch)
