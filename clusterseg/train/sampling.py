"""Which samples a rank reads in which step of an epoch, in training and in validation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clusterseg.data.order import epoch_order, rank_slice, steps_in_epoch
from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.train.batching import Batching


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


def samples_of_epoch(steps_per_epoch: int, count: int, global_batch: int) -> int:
    """Samples that an epoch of so many whole global batches reads, of `count` that there are."""
    return min(count, steps_per_epoch * global_batch)


def few_samples(count: int, batch: int, world_size: int) -> str | None:
    """What to tell where all samples together make no full global batch."""
    if count >= batch * world_size:
        return None
    return (
        f"{count} samples are fewer than one global batch of {batch * world_size} "
        f"({world_size} rank{'s' * (world_size != 1)} × {batch}): every step has padding"
    )


def training_indices(
    *,
    seed: int,
    epoch: int,
    count: int,
    first: int,
    last: int,
    batching: Batching,
    rank: int,
) -> NDArray[np.int64]:
    """int64 [steps × shares, batch]: what this rank reads of the epoch's order from `first` on, a
    row a micro-batch; -1 pads.

    The places up to `last` are cut into global batches from `first` on, so that an epoch goes on
    with batches of another size without reading a sample twice or never. Raises ClustersegError
    if nothing is left.
    """
    if first >= last:
        raise ClustersegError(
            f"{first} samples of epoch {epoch + 1} are read, but it ends after {last}",
            code="steps-per-epoch",
            help="resume with train.steps_per_epoch as it was, or from an epoch's end",
            exit_code=ExitCode.FAILED,
        )
    left = epoch_order(seed, epoch, count)[first:last]
    return rank_slice(
        left,
        global_batch=batching.global_batch,
        first_step=0,
        steps=steps_in_epoch(len(left), batching.global_batch),
        rank=rank,
        world_size=batching.world_size,
    ).reshape(-1, batching.batch)


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
