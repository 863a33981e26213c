"""The writer's thread: one thing at a time, nothing lost, nobody waits who does not ask to."""

from __future__ import annotations

import threading
import time

import pytest

from clusterseg.train.writer import Writer

PATIENCE = 30.0


def test_the_work_is_done_elsewhere_and_its_result_is_taken_once() -> None:
    writer: Writer[str] = Writer()
    assert writer.result() is None and writer.wait() is None
    writer.start(lambda: threading.current_thread().name)
    assert writer.wait(PATIENCE) == "checkpoint writer"
    assert writer.result() is None and writer.wait() is None


def test_work_under_way_blocks_nobody_and_lets_no_other_begin() -> None:
    writer: Writer[int] = Writer()
    gate = threading.Event()
    writer.start(lambda: (gate.wait(PATIENCE), 7)[1])
    began = time.monotonic()
    assert writer.result() is None
    assert writer.wait(0.01) is None
    assert time.monotonic() - began < PATIENCE / 2
    with pytest.raises(RuntimeError, match="busy"):
        writer.start(lambda: 8)
    gate.set()
    assert writer.wait(PATIENCE) == 7
    writer.start(lambda: 8)
    assert writer.wait(PATIENCE) == 8


def test_work_that_is_done_and_not_asked_for_keeps_its_place() -> None:
    """A result that the next work replaced would be a checkpoint that nobody is told of."""
    writer: Writer[int] = Writer()
    done = threading.Event()
    writer.start(lambda: (done.set(), 1)[1])
    assert done.wait(PATIENCE)
    with pytest.raises(RuntimeError):
        writer.start(lambda: 2)
    assert writer.wait(PATIENCE) == 1


@pytest.mark.parametrize("error", [OSError(28, "full"), MemoryError(), SystemExit(3), ValueError()])
def test_an_error_is_a_result(error: BaseException) -> None:
    def fail() -> None:
        raise error

    writer: Writer[None] = Writer()
    writer.start(fail)
    assert writer.wait(PATIENCE) is error
    assert writer.result() is None
