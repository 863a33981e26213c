"""Child processes that the kernel ends with their parent, whatever happens to it. Linux only."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1  # prctl(2)


def die_with_parent(number: int) -> Callable[[], None]:
    """What a child calls between fork and exec, to get signal `number` when its parent dies.

    It holds over exec. The parent must start the child from its main thread, since the signal
    comes when the thread ends that forked.
    """
    libc = ctypes.CDLL(None, use_errno=True)  # loaded before the fork
    parent = os.getpid()

    def in_child() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent:  # it died before the call
            os._exit(127)

    return in_child
