"""Waiting for signals, readable descriptors and time together, without a busy loop."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

WATCHED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)


class Wakeups:
    """While entered, the watched signals do nothing but end a `wait` and stand in `take`.

    Only for the main thread. A signal between two waits is not lost: its number waits in a pipe
    (`signal.set_wakeup_fd`), which is what `wait` looks at.
    """

    def __enter__(self) -> Wakeups:
        self._reading, self._writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._fd_before = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        self._before: dict[int, Any] = {
            number: signal.signal(number, _ignore) for number in WATCHED
        }
        # A parent that guards this process blocks them until they can do no harm.
        self._blocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED) & set(WATCHED)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, self._blocked)
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        signal.set_wakeup_fd(self._fd_before)
        os.close(self._reading)
        os.close(self._writing)

    def wait(self, seconds: float, descriptors: Iterable[int] = ()) -> None:
        """Returns after `seconds`, or as soon as a signal came or a descriptor can be read."""
        poll = select.poll()  # select() itself can't take descriptors beyond 1023
        for descriptor in (self._reading, *descriptors):
            poll.register(descriptor, select.POLLIN)
        poll.poll(max(0.0, seconds) * 1000)

    def take(self) -> list[int]:
        """The watched signals that came since the last call, in order."""
        data = b""
        with suppress(BlockingIOError):
            while piece := os.read(self._reading, 512):
                data += piece
        return [number for number in data if number in WATCHED]


def _ignore(number: int, frame: FrameType | None) -> None:
    """Python must have a handler for the wake-up descriptor to be written."""
