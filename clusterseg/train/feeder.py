"""Takes data from a thread, so that waiting for them can be left.

TensorFlow's iterator blocks inside of C++ while a file system gives nothing: no signal handler runs
there, and the other ranks wait in a reduction that this one does not come to.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")

_LOOK = 1.0  # seconds between two looks at whether to go on waiting
_PARTING = 1.0  # seconds in which a thread that is not stuck comes to its end
_NAME = "feeder"


class _Nothing:
    """No element is here."""


_NOTHING = _Nothing()


class Feeder(Generic[T]):
    """The `count` elements of an iterator, fetched one ahead; a context manager.

    `left` is how many are not `done` yet. What the iterator raises, `current` raises.
    """

    def __init__(self, elements: Iterator[T], count: int) -> None:
        self.left = count
        self._current: T | _Nothing = _NOTHING
        self._arrived: SimpleQueue[T | _Failed] = SimpleQueue()
        self._room = threading.Semaphore(1)
        self._closed = False
        self._thread = threading.Thread(
            target=self._fetch, args=(elements, count), name=_NAME, daemon=True
        )
        self._thread.start()

    def current(self, leave: Callable[[float], bool]) -> T | None:
        """The element whose turn it is, the same one until it is `done`.

        None if it is not here and `leave` said to wait no longer; that is asked once a second, with
        the seconds waited in this call.
        """
        if isinstance(self._current, _Nothing):
            arrived = self._wait(leave)
            if isinstance(arrived, _Nothing):
                return None
            if isinstance(arrived, _Failed):
                self._arrived.put(arrived)  # nothing follows it: whoever asks again gets it again
                raise arrived.error
            self._current = arrived
            self._room.release()
        return self._current

    def done(self) -> None:
        """The current element is used."""
        self._current = _NOTHING
        self.left -= 1

    def close(self) -> None:
        """Nothing more is fetched; a thread that is stuck is left behind (`any_stuck`)."""
        self._closed = True
        self._room.release()
        self._thread.join(_PARTING)

    def __enter__(self) -> Feeder[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wait(self, leave: Callable[[float], bool]) -> T | _Failed | _Nothing:
        began = time.monotonic()
        while True:
            try:
                return self._arrived.get(timeout=_LOOK)  # signal handlers run meanwhile
            except Empty:
                if leave(time.monotonic() - began):
                    return _NOTHING

    def _fetch(self, elements: Iterator[T], count: int) -> None:
        try:
            for _ in range(count):
                # Before it is fetched, not before it is handed over: one element in memory less.
                self._room.acquire()
                if self._closed:
                    return
                self._arrived.put(next(elements))
        except BaseException as error:
            self._arrived.put(_Failed(error))


class _Failed:
    """What the iterator raised."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def any_stuck() -> bool:
    """Whether a thread of a feeder still runs: where all are closed, it hangs in a read."""
    return any(thread.name == _NAME for thread in threading.enumerate())
