"""What follows from saves that fail."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterseg.runs.space import Space
from clusterseg.train.failures import FailureKind
from clusterseg.train.saving_policy import (
    Act,
    SavingPatience,
    Trouble,
    after_failures,
    foresee,
)

FULL, IO = FailureKind.DISK_FULL, FailureKind.IO
USUAL = SavingPatience()


def troubles(*at: float, kind: FailureKind = FULL) -> list[Trouble]:
    return [Trouble(kind, one) for one in at]


@pytest.mark.parametrize(
    ("at", "act", "next_at"),
    [
        ((5,), Act.RETRY, 15),
        ((5, 15), Act.RETRY, 45),
        ((5, 15, 45), Act.RETRY, 85),
        ((5, 15, 45, 85), Act.GIVE_UP, 85),
        ((5, 6, 7, 8), Act.RETRY, 48),  # four times within seconds is no disk that stays full
        ((5, 6, 7, 8, 48), Act.RETRY, 88),
        ((5, 6, 7, 8, 48, 66), Act.GIVE_UP, 66),
        ((5, 200), Act.RETRY, 230),  # nor is twice, however long ago
    ],
)
@pytest.mark.parametrize("kind", [FULL, IO])
def test_a_disk_has_time_to_get_well(
    at: tuple[float, ...], act: Act, next_at: float, kind: FailureKind
) -> None:
    assert after_failures(troubles(*at, kind=kind), USUAL) == (act, next_at)


@pytest.mark.parametrize("kind", sorted(set(FailureKind) - {FULL, IO}, key=lambda one: one.name))
@pytest.mark.parametrize("hurry", [False, True])
def test_what_would_come_again_ends_at_once(kind: FailureKind, hurry: bool) -> None:
    history = [*troubles(1), Trouble(kind, 2)]
    assert after_failures(history, USUAL, hurry=hurry).act is Act.GIVE_UP


def test_in_a_hurry_there_are_three_tries_a_second_apart() -> None:
    assert after_failures(troubles(1), USUAL, hurry=True) == (Act.RETRY, 2)
    assert after_failures(troubles(1, 2), USUAL, hurry=True) == (Act.RETRY, 3)
    assert after_failures(troubles(1, 2, 3), USUAL, hurry=True).act is Act.GIVE_UP


def test_in_a_hurry_it_is_tried_until_shortly_before_the_deadline() -> None:
    """A file server that is away for 10 s, at a stop for which there are 30 s."""
    at, until = [1.0], 23.0
    while (following := after_failures(troubles(*at), USUAL, hurry=True, until=until)).act is (
        Act.RETRY
    ):
        at.append(following.at)
    assert at == [1, 2, 3, 6, 9, 12, 15, 18, 21]
    late = after_failures(troubles(1, 2, 3), USUAL, hurry=True, until=-5.0)
    assert late.act is Act.GIVE_UP  # never less than without a deadline
    assert after_failures(troubles(1, 2), USUAL, hurry=True, until=-5.0).act is Act.RETRY


@given(
    gaps=st.lists(st.floats(0, 1000), min_size=1, max_size=30),
    kind=st.sampled_from([FULL, IO]),
)
def test_the_laws(gaps: list[float], kind: FailureKind) -> None:
    at = [sum(gaps[: n + 1]) for n in range(len(gaps))]
    following = after_failures(troubles(*at, kind=kind), USUAL)
    lasted = at[-1] - at[0]
    assert (following.act is Act.GIVE_UP) == (len(at) >= 4 and lasted >= 60)
    if following.act is Act.RETRY:
        assert at[-1] + 10 <= following.at <= at[-1] + 40
    assert after_failures(troubles(at[-1], kind=kind), USUAL).act is Act.RETRY  # after a success


def test_all_ranks_never_wait_as_long_as_a_hang_takes() -> None:
    from clusterseg.supervise.limits import Hang

    assert max(USUAL.delays) < Hang().base


def test_a_file_that_does_not_fit_is_foreseen() -> None:
    assert foresee(100, Space(116, 1), reserve=16) is None
    why = foresee(100_000_000, Space(110_000_000, 1), reserve=16_000_000)
    assert why == "it needs 100.0 MB, 110.0 MB are free of which 16.0 MB are kept for logs"
    assert foresee(100, Space(1 << 40, 0), reserve=0) == "no inode (file) is free"


def test_a_file_system_that_does_not_count_foresees_nothing() -> None:
    assert foresee(1 << 50, Space(None, None), reserve=1 << 50) is None
