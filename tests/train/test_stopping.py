"""Requests to stop: signals and the stop file, looked at no more than once a second."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from clusterseg.runs.control import request_stop
from clusterseg.train.stopping import SOURCES, StopSources


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_handlers")
@pytest.mark.parametrize(("number", "name"), [(signal.SIGTERM, "SIGTERM"), (10, "SIGUSR1")])
def test_a_signal_sets_its_flag_for_good(number: int, name: str) -> None:
    stops = StopSources(None)
    stops.install()
    assert stops.flags() == [False] * 3
    os.kill(os.getpid(), number)
    assert stops.flags() == stops.flags() == [source == name for source in SOURCES]
    assert stops.reason(stops.flags()) == name


def test_ranks_that_part_bear_the_launchers_term() -> None:
    """Also while Python ends, when handlers are gone."""
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]
    try:
        StopSources(None).ignore()  # not its own to change
        assert signal.getsignal(signal.SIGTERM) is before[0]
        stops = StopSources(None)
        stops.install()
        stops.ignore()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGUSR1), before, strict=True):
            signal.signal(number, handler)


def test_the_file_is_looked_at_once_a_second(tmp_path: Path) -> None:
    path, clock = tmp_path / "stop-000", Clock()
    path.touch()
    stops = StopSources(path, clock)
    assert not any(stops.flags())
    request_stop(path, "time_limit", 1.0)
    clock.now = 0.9
    assert not any(stops.flags())
    clock.now = 1.0
    assert stops.flags() == [False, False, True]
    path.write_bytes(b"")  # a request is not taken back
    clock.now = 9.0
    assert stops.flags() == [False, False, True]
    assert stops.reason([False, False, True]) == "time_limit"


def test_the_reason_is_found_also_where_another_rank_was_quicker(tmp_path: Path) -> None:
    path = tmp_path / "stop-000"
    path.touch()
    stops = StopSources(path, Clock())
    stops.flags()
    request_stop(path, "cancel")
    assert stops.reason([True, False, True]) == "cancel"
    assert StopSources(None).reason([False, False, True]) == "stop file"
    assert StopSources(None).reason([False, True, False]) == "SIGUSR1"


def test_a_missing_file_and_a_folder_in_its_place_ask_for_nothing(tmp_path: Path) -> None:
    assert not any(StopSources(tmp_path / "none").flags())
    assert not any(StopSources(tmp_path).flags())


def test_the_deadline_is_that_of_the_newest_request(tmp_path: Path) -> None:
    path = tmp_path / "stop-000"
    path.touch()
    stops = StopSources(path)
    assert stops.deadline() is None and not stops.asked()
    request_stop(path, "preempted", deadline=1234.5)
    assert stops.deadline() == 1234.5 and stops.asked()
    request_stop(path, "cancel_now", deadline=1200.0)
    assert stops.deadline() == 1200.0
    assert StopSources(None).deadline() is None
