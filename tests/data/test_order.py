import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterseg.data.order import PADDING, epoch_order, rank_slice, steps_in_epoch

counts = st.integers(0, 300)
seeds = st.integers(0, 2**64 - 1)
epochs = st.integers(0, 10_000)


@given(seeds, epochs, counts)
def test_an_order_is_a_permutation_and_always_the_same(seed, epoch, count):
    order = epoch_order(seed, epoch, count)
    assert order.dtype == np.int64
    assert sorted(order) == list(range(count))
    np.testing.assert_array_equal(order, epoch_order(seed, epoch, count))


def test_orders_never_change():
    """A run resumed with a newer numpy or clusterseg must go on in the same order."""
    assert epoch_order(0, 0, 10).tolist() == [0, 2, 9, 1, 8, 5, 4, 3, 6, 7]
    assert epoch_order(5, 3, 10).tolist() == [5, 7, 9, 6, 1, 8, 4, 2, 0, 3]


def test_epochs_and_seeds_differ():
    orders = {tuple(epoch_order(s, e, 50)) for s in range(8) for e in range(8)}
    assert len(orders) == 64


def test_large_seeds_differ():
    orders = {tuple(epoch_order(s, 0, 50)) for s in (2**63, 2**63 + 1, 2**64 - 1, 2**53, 2**53 + 1)}
    assert len(orders) == 5


def test_orders_are_fair():
    """Every sample comes first about equally often: chi-square with 9 degrees of freedom."""
    first = np.bincount([epoch_order(1, e, 10)[0] for e in range(2000)], minlength=10)
    assert ((first - 200) ** 2 / 200).sum() < 33.7  # p = 0.0001


@st.composite
def shares(draw):
    world = draw(st.sampled_from([1, 2, 3, 4, 6, 12]))
    global_batch = 12 * draw(st.integers(1, 3))
    return draw(counts), global_batch, world


@given(shares(), seeds)
def test_every_sample_is_read_exactly_once(drawn, seed):
    count, global_batch, world = drawn
    order, steps = epoch_order(seed, 0, count), steps_in_epoch(count, global_batch)
    taken = [
        rank_slice(
            order,
            global_batch=global_batch,
            first_step=0,
            steps=steps,
            rank=rank,
            world_size=world,
        )
        for rank in range(world)
    ]
    assert all(part.shape == (steps, global_batch // world) for part in taken)
    read = np.concatenate([part.reshape(-1) for part in taken])
    assert sorted(read[read != PADDING]) == list(range(count))
    # Only the last global batch has padding, and together they are the order itself.
    together = np.concatenate(taken, axis=1).reshape(-1)
    np.testing.assert_array_equal(together[:count], order)
    assert (together[count:] == PADDING).all()


@given(shares(), seeds, st.data())
def test_going_on_inside_an_epoch_with_other_ranks_reads_the_rest(drawn, seed, data):
    count, global_batch, world = drawn
    steps = steps_in_epoch(count, global_batch)
    stop = data.draw(st.integers(0, steps))
    other = data.draw(st.sampled_from([1, 2, 3, 4, 6, 12]))
    order = epoch_order(seed, 2, count)

    def read(first, number, ranks):
        return [
            rank_slice(
                order,
                global_batch=global_batch,
                first_step=first,
                steps=number,
                rank=rank,
                world_size=ranks,
            )
            for rank in range(ranks)
        ]

    before = np.concatenate([x.reshape(-1) for x in read(0, stop, world)])
    after = np.concatenate([x.reshape(-1) for x in read(stop, steps - stop, other)])
    everything = np.concatenate([before, after])
    assert sorted(everything[everything != PADDING]) == list(range(count))


@pytest.mark.parametrize(
    "wrong",
    [
        {"global_batch": 5},
        {"rank": 2},
        {"rank": -1},
        {"first_step": 2, "steps": 2},
        {"first_step": -1},
    ],
)
def test_impossible_shares_are_refused(wrong):
    good = {"global_batch": 4, "first_step": 0, "steps": 1, "rank": 0, "world_size": 2}
    with pytest.raises(ValueError, match=r"\d"):
        rank_slice(np.arange(10), **{**good, **wrong})


def test_negative_numbers_are_refused():
    with pytest.raises(ValueError, match="negative"):
        epoch_order(-1, 0, 3)
