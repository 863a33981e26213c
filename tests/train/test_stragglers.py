"""Slow ranks are named while the run goes on, by the collector's own measure."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterseg.runs.eventlog import EventWriter, iter_events
from clusterseg.runs.records import Steps, Stragglers
from clusterseg.train.communicator.solo import SoloCommunicator
from clusterseg.train.stragglers import Computing, StragglerWatch, describe, scores, slow


def window(seconds: float, *, comm: float = 0.0, count: int = 1) -> Steps:
    return Steps(t=1.0, rank=0, epoch=0, step=1, count=count, images=1, seconds=seconds, comm=comm)


class Ranks(SoloCommunicator):
    """Rank `rank` of as many as have a median; the others' are given."""

    def __init__(self, rank: int, others: dict[int, int]) -> None:
        self.rank, self.size, self._others = rank, len(others) + 1, others
        self.asked: list[int] = []

    def gather(self, value: int) -> list[int]:
        self.asked.append(value)
        return [self._others.get(rank, value) for rank in range(self.size)]


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=50))
def test_the_quickest_rank_has_one_and_all_others_less(medians: list[int]) -> None:
    found = scores(medians)
    assert max(found) == 1 and all(0 < score <= 1 for score in found)
    assert sorted(range(len(medians)), key=lambda rank: medians[rank]) == sorted(
        range(len(medians)), key=lambda rank: -found[rank]
    )
    slower = {rank for rank, own in enumerate(medians) if own * 3 > min(medians) * 4}
    assert set(slow(found)) == slower


def test_the_threshold_is_three_quarters() -> None:
    assert slow(scores([75, 100, 101])) == {2: 75 / 101}
    assert scores([75, 0, 101]) == []  # one is not known
    assert scores([]) == []


def test_waiting_for_others_is_no_computing() -> None:
    """The twin: a rank that waits for a slow one takes as long as that."""
    quick, late = Computing(), Computing()
    for _ in range(4):
        quick.add(window(2.0, comm=1.5, count=2))
        late.add(window(2.0, count=2))
    assert (quick.take(), late.take()) == (250_000, 1_000_000)


def test_the_first_window_and_single_slow_ones_do_not_count() -> None:
    one = Computing()
    for seconds in (60.0, 1.0, 1.0, 9.0):
        one.add(window(seconds))
    assert one.take() == 1_000_000
    assert one.take() == 0  # all was taken


def test_too_few_windows_stay_for_the_next_epoch() -> None:
    one = Computing()
    for seconds in (60.0, 1.0, 2.0):
        one.add(window(seconds))
    assert one.take() == 0
    one.add(window(3.0))
    assert one.take() == 2_000_000


@pytest.mark.parametrize(
    ("rank", "others", "expected"),
    [
        (0, {1: 1_000_000, 2: 2_000_000}, {"2": 0.5}),
        (0, {1: 1_000_000, 2: 1_300_000}, None),
        (1, {0: 1_000_000, 2: 2_000_000}, None),  # only rank 0 speaks
        (0, {1: 1_000_000, 2: 0}, None),
    ],
)
def test_rank_0_warns_in_its_log_and_its_events(
    rank: int,
    others: dict[int, int],
    expected: dict[str, float] | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ranks = Ranks(rank, others)
    with EventWriter(tmp_path / "events") as events:
        watch = StragglerWatch(ranks, events)
        for _ in range(4):
            watch.add(window(1.0))
        lowest = watch.compare(epoch=3, step=30)
    said = capsys.readouterr().err
    written = list(iter_events(tmp_path / "events"))
    assert ranks.asked == [1_000_000]  # every rank takes part
    every = scores([others.get(one, 1_000_000) for one in range(ranks.size)])
    assert lowest == (min(every) if every else None)  # on every rank, a straggler's or not
    if expected is None:
        assert (said, written) == ("", [])
        return
    (event,) = written
    assert isinstance(event, Stragglers)
    assert (event.epoch, event.step, event.seconds_per_step) == (3, 30, 1.0)
    assert event.scores == expected
    assert "epoch 3" in said and "rank 2 2 s (score 0.50)" in said


def test_one_rank_alone_asks_nobody(tmp_path: Path) -> None:
    with EventWriter(tmp_path / "events") as events:
        assert StragglerWatch(SoloCommunicator(), events).compare(epoch=1, step=1) is None
    assert list(iter_events(tmp_path / "events")) == []


def test_of_many_the_worst_are_named_and_the_others_counted() -> None:
    medians = [100, *range(1000, 1040)]
    said = describe(1, medians, slow(scores(medians)))
    assert "and 24 more" in said and "rank 40 " in said and "rank 1 " not in said
