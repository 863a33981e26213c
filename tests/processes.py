"""Finds and ends the processes that tests left running, detached ones included.

The tests run in a child of a small guardian, which adopts every orphan below it and reaps it at
once, as init does. So a detached run that has ended is really gone for the code under test, and
one that has not is still found below the guardian.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
# Helpers of Python itself, which end with the process that runs the tests.
_OWN_HELPERS = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")


def stand_guard() -> None:
    """Forks: returns in the child, which runs the tests; the parent ends as the child does."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    child = os.fork()
    if child == 0:
        return
    # Ctrl-C reaches the tests by the terminal; what is sent to us alone is passed on.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _frame: os.kill(child, received))
    while True:
        pid, status = os.wait()
        if pid == child:
            break
    # The tests' process has ended its descendants itself, unless it was killed.
    _kill_all(os.getpid(), {})
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


class Descendants:
    """The living processes below the guardian, and the test that each was first seen after."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, int], str] = {}

    def note(self, test: str) -> None:
        for process in _living(os.getppid()):
            self._seen.setdefault(process, test)

    def end_all(self, *, patience: float) -> list[str]:
        """Waits `patience` seconds for the rest to end, then kills it; one line for each killed."""
        guardian = os.getppid()
        deadline = time.monotonic() + patience
        while _living(guardian) and time.monotonic() < deadline:
            time.sleep(0.05)
        return _kill_all(guardian, self._seen)


def _kill_all(root: int, seen: dict[tuple[int, int], str]) -> list[str]:
    killed = []
    # One that is being killed may just have started another: look until none is left.
    while living := _living(root):
        for pid, start in living:
            test = seen.get((pid, start), "an unknown test")
            killed.append(f"  pid {pid} ({_command(pid)}), first seen after {test}")
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)
    return killed


def _living(root: int) -> list[tuple[int, int]]:
    """(pid, start ticks) of every living process below `root`, but for this one."""
    table: dict[int, tuple[int, str, int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                # Behind the name in brackets, which may hold anything: state, parent, …, start.
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                table[int(entry.name)] = (int(fields[1]), fields[0], int(fields[19]))
    below: set[int] = set()
    frontier = {root}
    while frontier:
        frontier = {pid for pid, (parent, _, _) in table.items() if parent in frontier}
        below |= frontier
    return [
        (pid, table[pid][2])
        for pid in sorted(below - {os.getpid()})
        if table[pid][1] not in "ZX" and not any(helper in _command(pid) for helper in _OWN_HELPERS)
    ]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return "?"
