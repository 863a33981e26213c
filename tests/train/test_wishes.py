"""What ranks want of each other: whatever one wants holds for all, and nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterseg.train import wishes
from clusterseg.train.stopping import SOURCES

NAMES = [field.name for field in dataclasses.fields(wishes.Agreed) if field.name != "stops"]
WISHES = st.tuples(
    st.lists(st.booleans(), min_size=len(SOURCES), max_size=len(SOURCES)),
    st.sets(st.sampled_from(NAMES)),
)


@given(st.lists(WISHES, min_size=1, max_size=20))
def test_whatever_one_rank_wants_holds_for_all(
    ranks: Sequence[tuple[list[bool], set[str]]],
) -> None:
    vectors = [wishes.pack(stops, **dict.fromkeys(wanted, True)) for stops, wanted in ranks]
    assert all(vector.shape == (wishes.COUNT,) for vector in vectors)
    agreed = wishes.unpack(sum(vector.astype("float64") for vector in vectors))
    assert agreed.stops == [any(flags) for flags in zip(*(one[0] for one in ranks), strict=True)]
    anybody = set().union(*(wanted for _, wanted in ranks))
    assert {name for name in NAMES if getattr(agreed, name)} == anybody


def test_a_wish_that_nobody_knows() -> None:
    with pytest.raises(TypeError, match="rest"):
        wishes.pack([False] * len(SOURCES), rest=True)
