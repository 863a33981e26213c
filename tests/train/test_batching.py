"""How a step is shared out among ranks, fresh and when a run goes on with other ranks."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterseg.errors import ClustersegError
from clusterseg.runs.records import CheckpointHeader
from clusterseg.spec.model import DataSpec, ModelSpec, TrainSpec
from clusterseg.train.batching import Batching, choose, fresh, news
from clusterseg.train.progress import Progress


def spec(**keys: Any) -> TrainSpec:
    return TrainSpec(
        model=ModelSpec(name="unet"), data=DataSpec(format="camvid", root="/a"), **keys
    )


def header(batching: Batching, inside: int = 3) -> CheckpointHeader:
    progress = Progress(step=9, step_in_epoch=inside)
    return progress.to_header(
        attempt=0, t=0.0, seed=0, batching=batching, identity={}, schedule={}, times={}
    )


def old_header(global_batch: int, world_size: int) -> CheckpointHeader:
    """Of a file from before a header told more than these."""
    return CheckpointHeader(
        epoch=0, step=9, step_in_epoch=3, attempt=0, t=0.0, global_batch=global_batch,
        world_size=world_size,
    )  # fmt: skip


def test_a_fresh_run_has_the_batches_of_the_job_and_its_rate_by_ranks() -> None:
    batching = fresh(spec(batch_size=4), 3)
    assert (batching.batch, batching.global_batch) == (4, 12)
    assert batching.rate_factor == 3
    assert [batching.first_of(rank) for rank in range(3)] == [0, 4, 8]
    assert choose(spec(batch_size=4), 3, None) == batching


def test_the_same_ranks_and_job_go_on_as_they_were() -> None:
    batching = fresh(spec(batch_size=4), 3)
    assert choose(spec(batch_size=4), 3, header(batching)) == batching
    assert news(batching, header(batching)) is None


@given(batch=st.integers(1, 8), ranks=st.integers(1, 8), data=st.data())
def test_a_kept_global_batch_is_kept_with_its_rate_over_any_chain_of_resumes(
    batch: int, ranks: int, data: st.DataObject
) -> None:
    first = now = fresh(spec(batch_size=batch), ranks)
    divisors = [one for one in range(1, batch * ranks + 1) if batch * ranks % one == 0]
    for other in data.draw(st.lists(st.sampled_from(divisors), max_size=4)):
        now = choose(spec(batch_size=batch), other, header(now))
        assert now.world_size == other
        assert now.global_batch == first.global_batch
        assert now.rate_factor == first.rate_factor == ranks


def test_ranks_that_can_not_share_the_global_batch_are_told_which_could() -> None:
    before = header(fresh(spec(batch_size=3), 4))
    with pytest.raises(ClustersegError) as caught:
        choose(spec(batch_size=3), 5, before)
    assert caught.value.message == (
        "resources make 5 ranks now, 4 there: 5 ranks can't share a global batch of 12 images "
        "equally (train.on_resize is keep)"
    )
    assert caught.value.help is not None
    assert "1, 2, 3, 4, 6, 12 ranks" in caught.value.help and "scale" in caught.value.help
    assert choose(spec(batch_size=3, on_resize="scale"), 5, before).global_batch == 15


def test_batches_that_are_accumulated_count_as_one_of_the_rank_and_not_in_the_rate() -> None:
    batching = fresh(spec(batch_size=4, accumulate=3), 2)
    assert (batching.batch, batching.shares, batching.rank_batch) == (4, 3, 12)
    assert (batching.global_batch, batching.rate_factor, batching.first_of(1)) == (24, 2, 12)


@pytest.mark.parametrize(
    ("ranks", "expected"), [(12, (4, 1)), (6, (4, 2)), (4, (4, 3)), (24, (2, 1)), (16, (3, 1))]
)
def test_a_kept_global_batch_is_made_of_the_same_batches_if_that_can_be(
    ranks: int, expected: tuple[int, int]
) -> None:
    job = spec(batch_size=4, accumulate=2)
    before = header(fresh(job, 6))
    batching = choose(job, ranks, before)
    assert (batching.batch, batching.shares) == expected
    said = news(batching, before)
    assert (said is None) == (ranks == 6)
    if said is not None:
        assert "the global batch stays 48" in said
        assert ("no more 4 at once" in said) == (batching.batch != 4)


@given(batch=st.integers(1, 8), accumulate=st.integers(1, 4), ranks=st.integers(1, 8), to=st.data())
def test_no_rank_computes_more_images_at_once_than_the_job_says(
    batch: int, accumulate: int, ranks: int, to: st.DataObject
) -> None:
    job = spec(batch_size=batch, accumulate=accumulate)
    before = fresh(job, ranks)
    size = before.global_batch
    other = to.draw(st.sampled_from([one for one in range(1, size + 1) if size % one == 0]))
    now = choose(job, other, header(before))
    assert now.global_batch == size and 1 <= now.batch <= batch
    if (size // batch) % other == 0:
        assert now.batch == batch


def test_scaled_by_choice_the_rate_follows_the_global_batch() -> None:
    job = spec(batch_size=4, on_resize="scale")
    before = fresh(job, 2)
    batching = choose(job, 6, header(before))
    assert (batching.batch, batching.global_batch) == (4, 24)
    assert (before.rate_factor, batching.rate_factor) == (2, 6)
    said = news(batching, header(before))
    assert said == ("6 ranks, there were 2: the global batch was 8, is now 24 (6 ranks × 4 images)")


def test_batches_that_the_job_asks_for_anew_are_taken_as_they_are() -> None:
    before = fresh(spec(batch_size=4), 4)
    doubled = choose(spec(batch_size=8), 4, header(before))
    assert (doubled.global_batch, doubled.rate_factor) == (32, 8)
    # Twice as many on half the ranks: nothing changes but who reads them.
    halved = choose(spec(batch_size=8), 2, header(before))
    assert (halved.batch, halved.global_batch, halved.rate_factor) == (8, 16, 4)
    # Asked for once: the next resize keeps what it has become.
    again = choose(spec(batch_size=8), 2, header(doubled))
    assert (again.batch, again.shares, again.global_batch, again.rate_factor) == (8, 2, 32, 8)


def test_steps_that_an_epoch_counts_do_not_change_their_size_in_the_middle() -> None:
    job = spec(batch_size=4, steps_per_epoch=5, on_resize="scale")
    before = fresh(job, 2)
    with pytest.raises(ClustersegError, match="steps_per_epoch counts steps of 8 images"):
        choose(job, 4, header(before))
    assert choose(job, 4, header(before, inside=0)).global_batch == 16
    assert choose(msgspec.structs.replace(job, on_resize="keep"), 4, header(before)).batch == 2


@pytest.mark.parametrize(("ranks", "batch", "shares"), [(4, 4, 1), (2, 4, 2), (1, 4, 4), (8, 2, 1)])
def test_a_file_from_before_headers_told_goes_on_alike(ranks: int, batch: int, shares: int) -> None:
    batching = choose(spec(batch_size=4), ranks, old_header(16, 4))
    assert batching.shares == shares
    assert (batching.batch, batching.global_batch, batching.rate_factor) == (batch, 16, 4)


def test_a_file_that_tells_no_global_batch_goes_on_as_the_job_says() -> None:
    assert choose(spec(batch_size=4), 2, old_header(0, 1)) == fresh(spec(batch_size=4), 2)
