"""How long to wait: silence, stops and the end of the allocation, from values alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterseg.supervise.limits import (
    Hang,
    Saves,
    Silence,
    Timing,
    allowed_silence,
    expected_save,
    find_hang,
    stop_lead,
    stop_patience,
)

HANG = Hang(startup=300, base=60, factor=5, validation=1800)
RANK = Silence(rank=0, silent=0, step=10, last_t=1.0)


@pytest.mark.parametrize(
    ("rank", "window", "validation", "allowed"),
    [
        (replace(RANK, step=None), 1.0, None, 300),
        (RANK, 1.0, None, 65),
        (RANK, 100.0, None, 560),
        (replace(RANK, at_epoch_end=True), 1.0, None, 1800),
        (replace(RANK, at_epoch_end=True), 1.0, 200.0, 1060),
        (replace(RANK, at_epoch_end=True), 500.0, 2.0, 2560),
        (replace(RANK, ended=True), 100.0, None, 60),
        (replace(RANK, at_epoch_end=True, process="S"), 1.0, None, 1800),
        (replace(RANK, at_epoch_end=True, process="T"), 1.0, None, 65),
        (replace(RANK, step=None, process="t"), 1.0, None, 65),
        (replace(RANK, step=None, process="gone"), 1.0, None, 300),
    ],
)
def test_allowed_silence(
    rank: Silence, window: float, validation: float | None, allowed: float
) -> None:
    assert allowed_silence(rank, HANG, window=window, validation=validation) == allowed


def hang(*ranks: Silence, train: bool = True) -> int | None:
    found = find_hang(ranks, HANG, window=1.0, validation=None, reports_steps=train)
    return None if found is None else found.rank


def silent(rank: int, seconds: float, **more: object) -> Silence:
    return replace(RANK, rank=rank, silent=seconds, **more)  # type: ignore[arg-type]


def test_nobody_hangs_within_the_allowed() -> None:
    assert hang(silent(0, 64), silent(1, 64)) is None
    assert hang(silent(0, 299, step=None), silent(1, 0)) is None
    assert hang(silent(0, 1799, at_epoch_end=True)) is None


def test_who_is_to_blame() -> None:
    """All fall silent with the one that is stuck."""
    assert hang(silent(0, 66), silent(1, 66, step=9)) == 1
    assert hang(silent(0, 66, last_t=5.0), silent(1, 66, last_t=4.0)) == 1
    assert hang(silent(0, 66, process="S", last_t=4.0), silent(1, 66, process="T")) == 1
    assert hang(silent(0, 66, process="S", step=9), silent(1, 66, process="gone")) == 1
    assert hang(silent(0, 66), silent(1, 20, step=None)) == 1


def test_one_that_has_ended_is_not_to_blame_while_others_run() -> None:
    assert hang(silent(0, 500, ended=True), silent(1, 20)) is None
    assert hang(silent(0, 500, ended=True), silent(1, 66)) == 1
    # All have ended, but the launcher has not.
    assert hang(silent(0, 61, ended=True), silent(1, 61, ended=True)) is not None


def test_a_program_that_tells_no_steps_is_not_judged() -> None:
    assert hang(silent(0, 1e6, step=None), silent(1, 1e6, step=None), train=False) is None
    assert hang(silent(0, 1e6, step=None), silent(1, 66), train=False) == 0


def test_a_stop_is_given_time_for_step_and_save() -> None:
    timing = Timing(stop_train=120, stop_command=30)
    assert stop_patience(timing, train=True, save=None, window=0) == 120
    assert stop_patience(timing, train=True, save=100, window=10) == 440
    assert stop_patience(timing, train=False, save=None, window=0) == 30


@given(st.floats(1, 1e7), st.none() | st.floats(0, 1e5), st.floats(0, 1e5))
def test_the_lead_leaves_room_for_the_save_and_for_work(
    limit: float, save: float | None, window: float
) -> None:
    lead = stop_lead(limit, save=save, window=window)
    assert 0 < lead <= limit / 2
    if save is not None and limit >= 4 * (save + window) + 20:
        assert lead >= 2 * (save + window)


@given(
    st.lists(
        st.builds(
            Silence,
            rank=st.integers(0, 9),
            silent=st.floats(0, 1e4),
            step=st.none() | st.integers(0, 9),
            last_t=st.none() | st.floats(0, 10),
            at_epoch_end=st.booleans(),
            ended=st.booleans(),
            process=st.sampled_from([None, "S", "T", "gone"]),
        ),
        min_size=1,
        max_size=6,
    ),
    st.booleans(),
)
def test_laws_of_hangs(ranks: list[Silence], train: bool) -> None:
    found = find_hang(ranks, HANG, window=1.0, validation=None, reports_steps=train)
    if found is None:
        return
    assert found in ranks
    assert any(rank.silent > 60 for rank in ranks), "nobody was silent for long"
    if not all(rank.ended for rank in ranks):
        assert not found.ended


@pytest.mark.parametrize(
    ("earlier", "expected"),
    [
        ([], None),
        ([Saves()], None),  # it never came to save
        ([Saves(40), Saves(25), Saves()], 40),
        ([Saves(cut_off=True)], 20),
        ([Saves(cut_off=True)] * 3, 80),
        ([Saves(40), Saves(cut_off=True)], 80),
        ([Saves(cut_off=True), Saves(35)], 35),
    ],
)
def test_a_save_is_expected_to_take_what_it_took(
    earlier: list[Saves], expected: float | None
) -> None:
    assert expected_save(earlier) == expected


def test_the_lead_grows_until_a_save_has_its_time() -> None:
    """Each attempt is cut off while it saves, for the first time after the allocation's end."""
    takes, earlier = 200.0, list[Saves]()
    while stop_lead(3600, save=expected_save(earlier), window=1) < takes:
        earlier.append(Saves(cut_off=True))
    assert len(earlier) == 4
