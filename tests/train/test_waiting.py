"""When ranks ask each other beside the steps, decided without a clock of its own."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterseg.train.waiting import CADENCE, Cadence, leaves, stride

SECONDS = st.floats(0, 1000)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@given(SECONDS, SECONDS, st.booleans())
def test_a_stop_that_was_asked_for_here_waits_for_data_no_longer_than_a_moment(
    waited: float, step: float, alone: bool
) -> None:
    assert leaves(waited, asked=True, alone=alone, step=step) == (waited >= 1.0) or waited >= 5.0


@given(SECONDS, SECONDS)
def test_a_rank_alone_that_nobody_asked_waits_for_ever(waited: float, step: float) -> None:
    assert not leaves(waited, asked=False, alone=True, step=step)


@pytest.mark.parametrize(("step", "beat"), [(0.0, 5.0), (0.5, 5.0), (2.0, 20.0), (100.0, 60.0)])
def test_others_are_asked_so_seldom_that_it_costs_a_tenth_and_within_a_minute(
    step: float, beat: float
) -> None:
    assert not leaves(beat - 0.01, asked=False, alone=False, step=step)
    assert leaves(beat, asked=False, alone=False, step=step)


@given(SECONDS)
def test_a_stride_lasts_no_longer_than_the_cadence_if_a_batch_does_not(pace: float) -> None:
    batches = stride(pace)
    assert 1 <= batches <= 64
    assert batches == 1 or batches * pace <= CADENCE * (1 + 1e-9)
    assert batches == 64 or (batches + 1) * pace > CADENCE * (1 - 1e-9)


def places(paces: Sequence[Sequence[float]], count: int) -> list[tuple[list[int], list[float]]]:
    """Where each rank agrees of `count` batches, and when; a rank needs paces[rank][batch]."""
    clocks = [Clock() for _ in paces]
    cadences = [Cadence(clock) for clock in clocks]
    found: list[tuple[list[int], list[float]]] = [([], []) for _ in paces]
    for batch in range(count):
        due = [one.place == batch for one in cadences]
        assert len(set(due)) == 1, "a rank asks while another one does not listen"
        if due[0]:
            least = min(one.proposal() for one in cadences)
            latest = max(clock.now for clock in clocks)  # they wait for each other
            for clock, cadence, (where, when) in zip(clocks, cadences, found, strict=True):
                clock.now = latest
                cadence.agreed(least)
                where.append(batch)
                when.append(latest)
        for rank, clock in enumerate(clocks):
            clock.now += paces[rank][batch]
    return found


@given(st.data(), st.integers(1, 5), st.integers(1, 200))
def test_all_ranks_agree_at_the_same_batches_the_first_one_among_them(
    data: st.DataObject, ranks: int, count: int
) -> None:
    pace = st.lists(st.floats(0, 3), min_size=count, max_size=count)
    first, *others = places([data.draw(pace) for _ in range(ranks)], count)
    assert first[0][0] == 0
    assert all(other == first for other in others)


@pytest.mark.parametrize("slow", [0.011, 0.1, 0.4, 2.0])
def test_the_slowest_rank_sets_the_pace_half_a_second_apart(slow: float) -> None:
    where, when = places([[0.01] * 300, [slow] * 300], 300)[0]
    assert where[:2] == [0, 1]
    apart = [later - earlier for earlier, later in pairwise(when)][1:]
    assert all(0.25 < one <= max(CADENCE, slow) + 1e-9 for one in apart)


def test_a_first_batch_that_takes_long_does_not_matter_for_ever() -> None:
    where, _ = places([[20.0, *[0.05] * 99]], 100)[0]
    assert where[:3] == [0, 1, 2] and where[3] in (11, 12)
