"""Data from a thread: in order, each once, and a wait for them that can be left."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator

import pytest

from clusterseg.train import feeder
from clusterseg.train.feeder import Feeder, any_stuck


def never(waited: float) -> bool:
    return False


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeder, "_LOOK", 0.05)


class Held:
    """Elements of which number `at` does not come before `released`."""

    def __init__(self, at: int) -> None:
        self.released, self.at, self.fetched = threading.Event(), at, 0

    def __iter__(self) -> Iterator[int]:
        for number in range(10):
            if number == self.at:
                self.released.wait(60)
            self.fetched += 1
            yield number


@pytest.fixture
def held() -> Iterator[Callable[[int], Held]]:
    made: list[Held] = []

    def make(at: int) -> Held:
        made.append(Held(at))
        return made[-1]

    yield make
    for one in made:
        one.released.set()


def take(batches: Feeder[int]) -> int:
    found = batches.current(never)
    assert found is not None
    batches.done()
    return found


def test_the_elements_come_in_order_each_once() -> None:
    with Feeder(iter(range(100)), 100) as batches:
        assert [take(batches) for _ in range(100)] == list(range(100)) and batches.left == 0
    assert not any_stuck()


def test_an_element_stays_until_it_is_done() -> None:
    with Feeder(iter(range(3)), 3) as batches:
        assert [batches.current(never) for _ in range(5)] == [0] * 5
        assert batches.left == 3
        batches.done()
        assert batches.current(never) == 1


def test_no_more_than_one_is_fetched_ahead(held: Callable[[int], Held]) -> None:
    source = held(99)
    with Feeder(iter(source), 10) as batches:
        for expected in range(1, 6):
            deadline = time.monotonic() + 20
            while source.fetched < expected and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.05)
            assert source.fetched == expected
            batches.current(never)
            batches.done()


def test_a_wait_is_left_when_told_and_what_comes_later_is_not_lost(
    held: Callable[[int], Held],
) -> None:
    source, asked = held(2), []
    with Feeder(iter(source), 10) as batches:
        assert [take(batches), take(batches)] == [0, 1]

        def after_three(waited: float) -> bool:
            asked.append(waited)
            return len(asked) % 3 == 0

        assert batches.current(after_three) is None
        assert batches.current(after_three) is None
        assert len(asked) == 6 and asked[3] < asked[2]  # each call waits anew
        assert batches.left == 8
        source.released.set()
        assert [take(batches) for _ in range(8)] == list(range(2, 10))
    assert not any_stuck()


def test_signal_handlers_run_in_a_wait(held: Callable[[int], Held]) -> None:
    came: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: came.append(number))
    try:
        with Feeder(iter(held(0)), 10) as batches:
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1)).start()
            deadline = time.monotonic() + 20
            assert batches.current(lambda _: bool(came) or time.monotonic() > deadline) is None
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert came == [signal.SIGUSR1]


def test_an_error_is_raised_where_its_element_would_be_and_again() -> None:
    def broken() -> Iterator[int]:
        yield 0
        raise ValueError("picture 1")

    with Feeder(broken(), 2) as batches:
        assert take(batches) == 0
        for _ in range(2):
            with pytest.raises(ValueError, match="picture 1"):
                batches.current(never)


def test_a_thread_that_is_stuck_is_left_behind_and_told_of(
    held: Callable[[int], Held], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeder, "_PARTING", 0.1)
    source = held(0)
    with Feeder(iter(source), 10):
        pass
    assert any_stuck()
    source.released.set()
    deadline = time.monotonic() + 20
    while any_stuck() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any_stuck() and source.fetched == 1  # what came late is all it fetched


def test_closed_in_the_middle_it_lets_go_of_the_data() -> None:
    class Source:
        def __iter__(self) -> Iterator[int]:
            yield from range(10)

        def __next__(self) -> int:
            return 0

    source = Source()
    gone = weakref.ref(source)
    batches: Feeder[int] = Feeder(source, 10)
    take(batches)
    batches.close()
    del source
    gc.collect()
    assert gone() is None
