"""Child processes that the kernel ends with their parent, whatever happens to it. Linux only."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

# After these a process has to end; the others it only hears.
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
PASSED_ON = (
    *ENDING,
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT, signal.SIGALRM, signal.SIGCONT),
)
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


@dataclass(frozen=True)
class Ended:
    """`code`: the exit code, or the negative number of the signal that killed it. `told`: it had
    been sent a signal that is to end it."""

    code: int
    told: bool


def run_inside(argv: Sequence[str], environ: Mapping[str, str]) -> Ended:
    """Runs a program in a process group of its own and passes every signal on to it.

    It has the files that this process was started with, and is killed if this process is. Raises
    OSError if it can't be started.
    """
    process: subprocess.Popen[bytes] | None = None
    heard: list[int] = []  # and before there is a process, to be passed on then

    def pass_on(number: int, frame: FrameType | None) -> None:
        heard.append(number)
        if process is not None:
            _signal_group(process, number)

    for known in PASSED_ON:
        signal.signal(known, pass_on)
    process = subprocess.Popen(
        list(argv),
        env=dict(environ),
        process_group=0,
        close_fds=False,  # a launcher's connection to its rank (PMI_FD) is one of them
        # There are no threads, and the child only calls prctl and getppid.
        preexec_fn=die_with_parent(signal.SIGKILL),  # noqa: PLW1509
    )
    for number in tuple(heard):
        _signal_group(process, number)
    code = process.wait()
    return Ended(code, told=bool(set(heard) & set(ENDING)))


def end_like(code: int) -> NoReturn:
    """Ends this process as a child has ended (`Ended.code`), by the same signal if it was one."""
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump of the child tells, not of this
        if -code not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code if code >= 0 else 128 - code)


def refusal_code(error: OSError) -> int:
    """What a shell returns for a program that is not there, or can't be executed."""
    return 127 if isinstance(error, FileNotFoundError) else 126


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    if process.returncode is None:  # else another may have its process id
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
