"""Every sample once an epoch, whoever reads it and wherever the epoch was interrupted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterseg.errors import ClustersegError
from clusterseg.train.sampling import (
    epoch_steps,
    few_samples,
    training_indices,
    validation_indices,
)


def test_steps_are_the_whole_set_unless_asked_for_fewer() -> None:
    assert epoch_steps(None, 10, 4) == 3
    assert epoch_steps(2, 10, 4) == 2
    with pytest.raises(ClustersegError, match="10 samples make 3 steps"):
        epoch_steps(4, 10, 4)


@given(
    count=st.integers(1, 60),
    batch=st.integers(1, 4),
    world_size=st.integers(1, 4),
    cut=st.integers(0, 60),
)
def test_an_epoch_in_two_parts_reads_every_sample_once(
    count: int, batch: int, world_size: int, cut: int
) -> None:
    steps = epoch_steps(None, count, batch * world_size)
    cut = min(cut, steps)

    def read(first: int, rank: int) -> np.ndarray:
        return training_indices(
            seed=1, epoch=2, count=count, batch=batch, first_step=first, steps=steps,
            rank=rank, world_size=world_size,
        )  # fmt: skip

    ranks = range(world_size)
    parts = [read(0, rank)[:cut] for rank in ranks] + [read(cut, rank) for rank in ranks]
    everything = np.concatenate([part.reshape(-1) for part in parts])
    assert sorted(everything[everything >= 0]) == list(range(count))
    assert {len(read(cut, rank)) for rank in ranks} == {steps - cut}


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
