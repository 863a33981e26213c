"""A stop that is asked for while a rank waits for data: agreed, carried out, nothing lost."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from clusterseg.runs.checkpoints import list_checkpoints
from clusterseg.train import batches, feeding
from clusterseg.train.feeder import Feeder, any_stuck
from clusterseg.train.stopping import StopSources
from tests.train.attempts import Attempts
from tests.train.runs import Run, job

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

STEPS = 27  # 3 epochs of 9; 3 batches in a validation
SOON = 15.0  # seconds: patience, a save, a busy machine; `LATE` is more
LATE = 40.0


@dataclass
class Gate:
    """Holds the `at`-th element (from 0) of a part, in the epoch that asks for it `epoch` times
    (from 0) later, until it is opened; `reached` is set as it is waited for."""

    part: str
    at: int
    epoch: int = 0
    reached: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)

    def wrap(self, feed: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        def held(part: Any, *arguments: Any, **keywords: Any) -> Iterator[Any]:
            elements = feed(part, *arguments, **keywords)
            if part.name != self.part:
                return elements
            self.epoch -= 1
            return self._hold(elements) if self.epoch == -1 else elements

        return held

    def _hold(self, elements: Iterator[Any]) -> Iterator[Any]:
        for number, element in enumerate(elements):
            if number == self.at:
                self.reached.set()
                self.opened.wait(300)
            yield element


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Gate]]:
    made: list[Gate] = []

    def make(part: str, at: int, epoch: int = 0) -> Gate:
        made.append(Gate(part, at, epoch))
        feed = made[-1].wrap(feeding.feed)
        monkeypatch.setattr(batches, "feed", feed)
        monkeypatch.setattr(feeding, "feed", feed)
        return made[-1]

    yield make
    for one in made:
        one.opened.set()
    deadline = time.monotonic() + 60
    while any_stuck() and time.monotonic() < deadline:
        time.sleep(0.05)


@pytest.fixture
def stops() -> Iterator[StopSources]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    stops = StopSources(None)
    stops.install()
    yield stops
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def attempts(data: Path, assembly: Any, fresh: dict[str, Any], tmp_path: Path) -> Attempts:
    return Attempts(Run(tmp_path / "run", job(data)), assembly, fresh)


@pytest.fixture(scope="module")
def reference(
    data: Path, assembly: Any, fresh: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[bytes, list[dict[str, Any]]]:
    whole = Attempts(Run(tmp_path_factory.mktemp("whole") / "run", job(data)), assembly, fresh)
    assert whole.attempt() is None
    return whole.final()


def until_it_waits() -> None:
    """Until the main thread waits for data: it has more to do before, with those one ahead."""
    main = threading.main_thread().ident
    assert main is not None
    seen = 0
    while seen < 5:  # one glance may meet it as it takes what is there
        time.sleep(0.1)
        stack = traceback.walk_stack(sys._current_frames()[main])
        seen = seen + 1 if any(one.f_code.co_name == "_wait" for one, _ in stack) else 0


def stopped_at(gate: Gate, attempts: Attempts, stops: StopSources, *, late: float = LATE) -> float:
    """Runs an attempt that gets SIGUSR1 while it waits at the gate, which is opened `late` seconds
    later; returns the seconds from the signal to the attempt's end."""
    asked: list[float] = []

    def ask() -> None:
        assert gate.reached.wait(300)
        until_it_waits()
        asked.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGUSR1)
        gate.opened.wait(late)
        gate.opened.set()

    threading.Thread(target=ask, daemon=True).start()
    assert attempts.attempt(stops) == "SIGUSR1"
    return time.monotonic() - asked[0]


@pytest.mark.parametrize(
    ("epoch", "at"),
    [(0, 0), (0, 4), (1, 0), (2, 8)],  # the very first batch, amid an epoch, its first and last
)
def test_a_stop_in_a_wait_for_a_step_saves_the_step_before_and_loses_nothing(
    gate: Callable[..., Gate],
    attempts: Attempts,
    stops: StopSources,
    reference: Any,
    *,
    epoch: int,
    at: int,
) -> None:
    held = gate("train", at, epoch)
    assert stopped_at(held, attempts, stops) < SOON and not held.opened.is_set()
    done = 9 * epoch + at
    assert attempts.steps(0) == list(range(1, done + 1))
    saved = list_checkpoints(attempts.run.paths.checkpoints)
    assert [one.header.step for one in saved][-1:] == [done][: len(saved)]
    assert bool(saved) == (done > 0)
    held.opened.set()
    assert attempts.attempt() is None
    assert attempts.steps(1) == list(range(done + 1, STEPS + 1))
    assert attempts.final() == reference
    assert attempts.epochs() == [1, 2, 3]


@pytest.mark.parametrize("at", [0, 2])
def test_a_stop_in_a_wait_of_a_validation_does_it_anew(
    gate: Callable[..., Gate], attempts: Attempts, stops: StopSources, reference: Any, at: int
) -> None:
    held = gate("validation", at, 1)
    assert stopped_at(held, attempts, stops) < SOON and not held.opened.is_set()
    header = list_checkpoints(attempts.run.paths.checkpoints)[-1].header
    assert (header.epoch, header.step, header.validated) == (2, 18, False)
    assert attempts.epochs() == [1]
    held.opened.set()
    assert attempts.attempt() is None
    assert attempts.steps(1) == list(range(19, STEPS + 1))
    assert attempts.final() == reference


@pytest.mark.proof
@pytest.mark.parametrize("part", ["train", "validation"])
def test_twin_a_wait_that_can_not_be_left_is_noticed(
    gate: Callable[..., Gate],
    attempts: Attempts,
    stops: StopSources,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
) -> None:
    def _wait(self: Any, leave: Any) -> Any:
        return self._arrived.get()

    monkeypatch.setattr(Feeder, "_wait", _wait)
    held = gate(part, 1)
    stopped_at(held, attempts, stops, late=4.0)
    assert held.opened.is_set()  # only then did the stop come about


def test_what_is_waited_for_counts_as_waiting(
    gate: Callable[..., Gate], attempts: Attempts, stops: StopSources
) -> None:
    held = gate("train", 5)

    def open_late() -> None:
        held.reached.wait(300)
        time.sleep(2)
        held.opened.set()

    threading.Thread(target=open_late, daemon=True).start()
    assert attempts.attempt(stops) is None
    windows = [one for one in attempts.run.windows() if one.step - one.count < 6 <= one.step]
    (window,) = windows
    assert 1.5 < window.wait_data <= window.seconds


def test_an_unreadable_picture_is_told_as_ever(
    data: Path, assembly: Any, fresh: dict[str, Any], attempts: Attempts,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """What the thread meets is raised in the step that would have read it."""
    error = ValueError("this very one")

    def broken(*arguments: Any, **keywords: Any) -> Iterator[Any]:
        elements = feed(*arguments, **keywords)
        yield next(elements)
        yield next(elements)
        raise error

    feed = feeding.feed
    monkeypatch.setattr(batches, "feed", broken)
    with pytest.raises(ValueError, match="this very one") as caught:
        attempts.attempt()
    assert caught.value is error
    assert any(entry.name == "broken" for entry in caught.traceback)  # it says where
    assert attempts.steps(0)[-1:] in ([1], [2])
    assert not any_stuck()
