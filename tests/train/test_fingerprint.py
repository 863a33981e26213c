"""The quick hash of the weights: what it must notice, and what a sum would not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from clusterseg.train import fingerprint as module
from clusterseg.train.fingerprint import fingerprint


@pytest.fixture(autouse=True)
def small_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that small arrays have rows and a rest, too."""
    monkeypatch.setattr(module, "_COLUMNS", 4)


def weights(count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=count).astype(np.float32)


def of(*arrays: NDArray[np.float32]) -> int:
    return fingerprint(array.view(np.uint8) for array in arrays)


@given(st.integers(1, 100), st.data())
def test_one_flipped_bit_anywhere_is_noticed(count: int, data: st.DataObject) -> None:
    one = weights(count)
    other = one.copy()
    place = data.draw(st.integers(0, 32 * count - 1))
    other.view(np.uint8)[place // 8] ^= 1 << place % 8
    assert of(one) == of(one.copy())
    assert of(one) != of(other)
    assert of(weights(9), one) != of(weights(9), other)


@given(st.integers(2, 100), st.data())
def test_two_weights_that_changed_places_are_noticed(count: int, data: st.DataObject) -> None:
    """As x and -x do: the sums of the numbers, and of their bits, stay the same."""
    first, second = data.draw(
        st.lists(st.integers(0, count - 1), min_size=2, max_size=2, unique=True)
    )
    one = weights(count)
    one[second] = -one[first]
    other = one.copy()
    other[[first, second]] = one[[second, first]]
    bits = [int(array.view(np.uint32).sum(dtype=np.uint64)) for array in (one, other)]
    assert bits[0] == bits[1]  # the twin
    assert of(one) != of(other)


def test_the_order_of_the_arrays_counts_and_the_result_travels_as_int64() -> None:
    one, other = weights(40, 1), weights(40, 2)
    assert of(one, other) != of(other, one)
    assert 0 <= of(one, other) < 2**63
    assert of() == of(weights(0))
