"""Windows of several ranks folded into one table, in whatever order they come."""

from __future__ import annotations

import itertools
from array import array

from hypothesis import given
from hypothesis import strategies as st

from clusterseg.collect.timeline import stretches
from clusterseg.collect.windows import Rows, Windows, counted_steps

Row = tuple[int, int, int, float]  # step, count, images, seconds


def rows(given: list[Row]) -> Rows:
    steps, counts, images, seconds = zip(*given, strict=True) if given else ((), (), (), ())
    return Rows(
        step=array("q", steps),
        count=array("I", counts),
        images=array("I", images),
        seconds=array("d", seconds),
        t=array("d", [float(step) for step in steps]),
    )


def table(windows: Windows) -> list[Row]:
    columns = (windows.step, windows.count, windows.images, windows.seconds)
    return list(zip(*columns, strict=True))


@given(
    st.lists(
        st.lists(
            st.tuples(
                st.integers(1, 8), st.integers(1, 3), st.integers(0, 5), st.sampled_from([1.0, 2.0])
            ),
            max_size=12,
        ),
        max_size=4,
    )
)
def test_any_order_gives_the_same_table(ranks: list[list[Row]]) -> None:
    """Also windows that go back, come twice, or are cut differently, as damage may have it."""
    expected: dict[int, Row] = {}
    windows = Windows()
    for rank in ranks:
        windows.fold(rows(rank))
        for step, count, images, seconds in rank:
            _, known_count, known_images, known_seconds = expected.get(step, (0, 0, 0, 0.0))
            slowest = max(seconds, known_seconds)
            expected[step] = (step, max(count, known_count), images + known_images, slowest)
    assert table(windows) == [expected[step] for step in sorted(expected)]
    assert len(windows.t) == len(windows.step)


def test_merging_tables_is_folding_all_ranks_into_one() -> None:
    one, other = Windows(), Windows()
    one.fold(rows([(1, 1, 4, 1.0), (3, 2, 8, 2.0)]))
    other.fold(rows([(1, 1, 4, 3.0), (3, 2, 8, 1.0), (6, 3, 12, 3.0)]))
    one.merge(other)
    assert table(one) == [(1, 1, 8, 3.0), (3, 2, 16, 2.0), (6, 3, 12, 3.0)]


def test_counted_steps_are_those_up_to_the_limit() -> None:
    for step, count, limit in itertools.product(range(1, 8), range(1, 8), range(10)):
        single = range(step - count + 1, step + 1)
        assert counted_steps(step, count, limit) == sum(number <= limit for number in single)
    assert counted_steps(5, 3, None) == 3


def test_the_timeline_is_short_and_splits_at_the_limit() -> None:
    windows = Windows()
    windows.fold(rows([(step, 1, 4, 2.0) for step in range(1, 5002)]))
    whole = list(stretches(7, windows, 3000))
    assert len(whole) < 450
    assert {stretch.attempt for stretch in whole} == {7}
    assert sum(stretch.seconds for stretch in whole) == 2.0 * 5000  # all but the first
    assert sum(stretch.seconds for stretch in whole if stretch.replayed) == 2.0 * 2001
    assert {stretch.images_per_second for stretch in whole} == {2.0}
    assert [stretch.t for stretch in whole] == sorted(stretch.t for stretch in whole)
    assert list(stretches(0, Windows(), None)) == []
