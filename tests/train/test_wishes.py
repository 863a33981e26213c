"""What ranks want of each other: whatever one wants holds for all, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from clusterseg.train import wishes
from clusterseg.train.stopping import SOURCES

WISHES = st.tuples(
    st.lists(st.booleans(), min_size=len(SOURCES), max_size=len(SOURCES)),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)


@given(st.lists(WISHES, min_size=1, max_size=20))
def test_whatever_one_rank_wants_holds_for_all(
    ranks: Sequence[tuple[list[bool], bool, bool, bool]],
) -> None:
    vectors = [
        wishes.pack(stops, cut=cut, save=save, give_up=give_up)
        for stops, cut, save, give_up in ranks
    ]
    assert all(vector.shape == (wishes.COUNT,) for vector in vectors)
    agreed = wishes.unpack(sum(vector.astype("float64") for vector in vectors))
    assert agreed.stops == [any(flags) for flags in zip(*(one[0] for one in ranks), strict=True)]
    assert agreed.cut == any(one[1] for one in ranks)
    assert agreed.save == any(one[2] for one in ranks)
    assert agreed.give_up == any(one[3] for one in ranks)
