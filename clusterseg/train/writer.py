"""The thread that writes one checkpoint at a time while the training goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

_Result = TypeVar("_Result")


class Writer(Generic[_Result]):
    """Does one piece of work at a time in a thread of its own.

    The work must not talk to other ranks nor write events: both belong to the main thread. An
    error of it is its result; none is lost.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._result: _Result | BaseException | None = None

    @property
    def busy(self) -> bool:
        """Whether there is work under way, or done and its result not yet taken."""
        return self._thread is not None

    def start(self, work: Callable[[], _Result]) -> None:
        """Begins `work`; RuntimeError if the result of the one before was not taken yet."""
        if self._thread is not None:
            raise RuntimeError("the writer is busy")

        def run() -> None:
            try:
                self._result = work()
            except BaseException as error:
                self._result = error

        # A daemon: a process that fails must not wait for a file system that hangs.
        self._thread = threading.Thread(target=run, name="checkpoint writer", daemon=True)
        self._thread.start()

    def result(self) -> _Result | BaseException | None:
        """What the work came to, once; None if it is under way or there is none. Never blocks."""
        return self.wait(0.0)

    def wait(self, timeout: float | None = None) -> _Result | BaseException | None:
        """As `result`, when the work is done or `timeout` seconds have passed."""
        if self._thread is None:
            return None
        self._thread.join(timeout)
        if self._thread.is_alive():
            return None
        self._thread = None
        result, self._result = self._result, None
        return result
