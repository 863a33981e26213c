"""Starting, finding and ending processes: by pid and start time, never by name.

A started process records itself before it becomes what was asked for, so there is no moment
at which it runs and nobody knows. Its record is the line of its /proc/<pid>/stat.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from failure import DevclusterError, WaitedInVain
from layout import LOCK_FD

# $1: the record. If its folder is gone (`down` was quicker), the process ends here. The lock
# is kept until the record is there, but not by the daemon.
_RECORD = 'read -r line < /proc/$$/stat; printf "%s\\n" "$line" > "$1"; shift; exec "$@" '
_RECORD += f"{LOCK_FD}>&-"


@dataclass(frozen=True)
class Process:
    """`start` (clock ticks since boot) tells a process from a later one of the same pid."""

    name: str
    pid: int
    start: int


def spawn(
    record: Path, log: Path, argv: Sequence[str], environ: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Starts a daemon of its own session, recorded in `record`, with its output in `log`."""
    record.unlink(missing_ok=True)
    with log.open("ab") as output:
        started = subprocess.Popen(
            ["sh", "-ec", _RECORD, "record", str(record), *argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(environ),
            cwd="/",
            start_new_session=True,
            pass_fds=_lock(),
        )
    wait_for(
        lambda: recorded(record) is not None or started.poll() is not None,
        seconds=10,
        what=f"{record.stem} to start",
    )
    return started


def run(
    *argv: str, environ: Mapping[str, str] | None = None, timeout: float = 60, stdin: str = ""
) -> str:
    """stdout of a command; raises DevclusterError with the command and what it said."""
    try:
        done = subprocess.run(
            argv,
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            env=None if environ is None else dict(environ),
            timeout=timeout,
            pass_fds=_lock(),
        )
    except subprocess.TimeoutExpired:
        raise DevclusterError(f"{' '.join(argv)}: no answer in {timeout:g} s") from None
    if done.returncode != 0:
        said = done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
        raise DevclusterError(f"{' '.join(argv)}: {said}")
    return done.stdout


def _lock() -> tuple[int, ...]:
    try:
        os.fstat(LOCK_FD)
    except OSError:
        return ()
    return (LOCK_FD,)


def recorded(record: Path) -> Process | None:
    """The process of a record; None without a (whole) record."""
    try:
        line = record.read_text()
        return Process(record.stem, int(line.split(maxsplit=1)[0]), _start(line))
    except (OSError, ValueError, IndexError):
        return None


def alive(process: Process | None) -> bool:
    """Whether it still runs; one that has ended and was not yet waited for does not."""
    return process is not None and identify(process.pid, process.name) == process


def identify(pid: int, name: str = "") -> Process | None:
    """The process that has `pid` now; None if there is none, or it has ended."""
    try:
        line = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state = line.rpartition(")")[2].split()[0]
    return None if state in "ZX" else Process(name, pid, _start(line))


def _start(line: str) -> int:
    # proc(5), field 22; field 2 is a name in brackets, which may hold anything.
    return int(line.rpartition(")")[2].split()[19])


def send(process: Process, *numbers: signal.Signals) -> bool:
    """Sends signals to this very process; False if it is gone."""
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        # From here on the pid can't become another process's.
        if not alive(process):
            return False
        with contextlib.suppress(ProcessLookupError):
            for number in numbers:
                signal.pidfd_send_signal(fd, number)
        return True
    finally:
        os.close(fd)


def end(find: Callable[[], Iterable[Process]], *, patience: float) -> None:
    """Ends all that `find` returns: TERM, after `patience` seconds KILL, until none is left."""
    asked: set[Process] = set()
    start = time.monotonic()
    while living := [process for process in find() if alive(process)]:
        waited = time.monotonic() - start
        if waited > patience + 10:
            left = ", ".join(f"{process.name or 'pid'} {process.pid}" for process in living)
            raise DevclusterError(f"can't end: {left}")
        for process in living:
            if waited >= patience:
                send(process, signal.SIGKILL)
            elif process not in asked:
                asked.add(process)
                send(process, signal.SIGTERM, signal.SIGCONT)
        time.sleep(0.05)


def wait_for(
    ready: Callable[[], bool], *, seconds: float, what: str, interval: float = 0.02
) -> None:
    """Looks every `interval` seconds; raises WaitedInVain after `seconds`."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise WaitedInVain(f"waited {seconds:g} s in vain for {what}")
        time.sleep(interval)
