"""Every sample once an epoch, whoever reads it and wherever the epoch was interrupted."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterseg.data.order import epoch_order
from clusterseg.errors import ClustersegError
from clusterseg.train.batching import Batching
from clusterseg.train.progress import Progress
from clusterseg.train.sampling import (
    epoch_steps,
    few_samples,
    training_indices,
    validation_indices,
)
from tests.train.batchings import shared


def test_steps_are_the_whole_set_unless_asked_for_fewer() -> None:
    assert epoch_steps(None, 10, 4) == 3
    assert epoch_steps(2, 10, 4) == 2
    with pytest.raises(ClustersegError, match="10 samples make 3 steps"):
        epoch_steps(4, 10, 4)


def read(batching: Batching, *, first: int, last: int, count: int) -> np.ndarray:
    """int64 [steps, global batch]: what all ranks read, a row a step."""
    shares = [
        training_indices(
            seed=1, epoch=2, count=count, first=first, last=last, batching=batching, rank=rank
        )
        for rank in range(batching.world_size)
    ]
    assert all(share.shape[1] == batching.batch for share in shares)
    by_step = [share.reshape(-1, batching.rank_batch) for share in shares]
    steps = {len(share) for share in by_step}
    assert len(steps) == 1
    return np.stack(by_step, axis=1).reshape(steps.pop(), batching.global_batch)


@given(
    count=st.integers(1, 60),
    sizes=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(0, 9)), max_size=4),
)
def test_an_epoch_with_any_resizes_reads_every_sample_once(
    count: int, sizes: list[tuple[int, int, int]]
) -> None:
    order = epoch_order(1, 2, count)
    progress, seen = Progress(), []
    for batch, world_size, steps in [*sizes, (2, 3, count)]:
        if progress.epoch:
            break
        batching = shared(batch * world_size, world_size)
        for row in read(batching, first=progress.samples_in_epoch, last=count, count=count)[:steps]:
            seen += [int(index) for index in row if index >= 0]
            progress.advance(1, 1, global_batch=batching.global_batch, epoch_samples=count)
    assert progress.epoch == 1 and seen == list(order)


@given(
    count=st.integers(1, 60),
    global_batch=st.sampled_from([4, 6, 12]),
    data=st.data(),
)
def test_a_step_reads_the_same_samples_with_any_number_of_ranks(
    count: int, global_batch: int, data: st.DataObject
) -> None:
    first = data.draw(st.integers(0, count - 1))
    rows = [
        read(shared(global_batch, ranks), first=first, last=count, count=count)
        for ranks in range(1, global_batch + 1)
        if global_batch % ranks == 0
    ]
    for row in rows[1:]:
        assert np.array_equal(row, rows[0])


@given(count=st.integers(1, 60), batch=st.integers(1, 4), data=st.data())
def test_the_same_pictures_are_seen_together_with_any_number_of_ranks(
    count: int, batch: int, data: st.DataObject
) -> None:
    pieces = data.draw(st.sampled_from([1, 2, 4, 6, 12]))
    rows = [
        read(
            dataclasses.replace(
                shared(pieces * batch, ranks), batch=batch, shares=pieces // ranks
            ),
            first=0, last=count, count=count,
        )
        for ranks in range(1, pieces + 1)
        if pieces % ranks == 0
    ]  # fmt: skip
    for row in rows[1:]:
        assert np.array_equal(row, rows[0])


def test_an_epoch_that_was_made_shorter_than_what_is_read_is_refused() -> None:
    with pytest.raises(ClustersegError, match="8 samples of epoch 3 are read, but it ends after 8"):
        read(shared(4, 2), first=8, last=8, count=20)


@given(count=st.integers(1, 60), batch=st.integers(1, 4), world_size=st.integers(1, 4))
def test_validation_reads_every_sample_once_in_equally_many_steps(
    count: int, batch: int, world_size: int
) -> None:
    shares = [
        validation_indices(count=count, batch=batch, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    everything = np.concatenate([share.reshape(-1) for share in shares])
    assert sorted(everything[everything >= 0]) == list(range(count))
    assert len({share.shape for share in shares}) == 1


def test_fewer_samples_than_a_global_batch_are_told_with_the_numbers() -> None:
    said = few_samples(36, 4, 16)
    assert said is not None
    assert said.startswith("36 samples are fewer than one global batch of 64 (16 ranks × 4)")
    assert few_samples(64, 4, 16) is None and few_samples(63, 4, 16) is not None
