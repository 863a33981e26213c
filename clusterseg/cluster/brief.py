"""Programs that are run for a short while, and of which nothing is left, whatever they do."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from clusterseg.cluster.children import die_with_parent
from clusterseg.cluster.processes import processes_with_environment, send_signal
from clusterseg.runs.text import one_line

_GRACE = 3.0  # seconds for a launcher to end its ranks when it is told to
_KEPT = 16384  # bytes of what was printed
_LONGEST = 300  # characters of a line


def run_briefly(
    argv: Sequence[str],
    environ: Mapping[str, str],
    folder: Path,
    *,
    mark: Mapping[str, str],
    patience: float,
) -> tuple[int | None, list[str]]:
    """Runs `argv` in `folder` until it ends, for `patience` seconds at most.

    Returns its exit code (negative: the signal that ended it; None: it had to be ended) and the
    last lines that it and what it started printed. `mark` are variables of nobody else: whoever
    has them in its environment is ended, too. Raises OSError if it can't be started.
    """
    deadline = time.monotonic() + patience
    output, writing = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(output, False)
    try:
        process = _start(argv, {**environ, **mark}, folder, writing)
        pidfd = os.pidfd_open(process.pid)
        said, in_time = b"", False
        try:
            said, in_time = _read_until(output, pidfd, deadline)
        finally:
            _end(process, pidfd, mark)
            os.close(pidfd)
        said = (said + _read(output))[-_KEPT:]
    finally:
        os.close(output)
    text = said.decode(errors="backslashreplace")
    lines = [one_line(line, _LONGEST) for line in text.splitlines() if line.strip()]
    return process.returncode if in_time else None, lines


@contextmanager
def ending_in_order() -> Iterator[None]:
    """TERM and HUP, which end a process at once, end it here as an interrupt does: what it started
    is ended first, and what it wrote removed. Only in the main thread."""
    numbers = (signal.SIGTERM, signal.SIGHUP)

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        for known in numbers:
            signal.signal(known, signal.SIG_IGN)  # another one must not break the ending off
        raise SystemExit(128 + number)

    usual = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in usual:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in usual:
            signal.signal(number, signal.SIG_DFL)


def _start(
    argv: Sequence[str], environ: Mapping[str, str], folder: Path, writing: int
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            list(argv),
            env=dict(environ),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=writing,
            process_group=0,
            # A killed mpirun would orphan its ranks; TERM makes it end them.
            preexec_fn=die_with_parent(signal.SIGTERM),  # noqa: PLW1509 (no threads here)
        )
    finally:
        os.close(writing)


def _read_until(output: int, pidfd: int, deadline: float) -> tuple[bytes, bool]:
    """The last of what is printed until the process ends, and whether it did by the deadline."""
    said, is_open = b"", True
    while (left := deadline - time.monotonic()) > 0:
        ready, _, _ = select.select([pidfd, output] if is_open else [pidfd], [], [], left)
        if output in ready:
            data = _read(output)
            is_open = bool(data)  # else closed by all who held it
            said = (said + data)[-_KEPT:]
        if pidfd in ready:
            return said, True
    return said, False


def _read(output: int) -> bytes:
    try:
        return os.read(output, 1 << 16)
    except BlockingIOError:
        return b""


def _end(process: subprocess.Popen[bytes], pidfd: int, mark: Mapping[str, str]) -> None:
    """Ends the process, in order if it can, and then all that it left."""
    ended, _, _ = select.select([pidfd], [], [], 0)
    if not ended:
        _signal_group(process.pid, signal.SIGTERM)
        select.select([pidfd], [], [], _GRACE)
    # As long as its leader is not waited for, the group's number is nobody else's.
    _signal_group(process.pid, signal.SIGKILL)
    process.wait()
    until = time.monotonic() + _GRACE
    while (left := processes_with_environment(mark)) and time.monotonic() < until:
        for one in left:
            send_signal(one, signal.SIGKILL)
        time.sleep(0.02)


def _signal_group(group: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
