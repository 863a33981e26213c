"""A small parent of the supervisor inside of a batch job: it outlives what kills the supervisor.

Slurm ends a job when its batch step's first process ends. So that process is one that does next
to nothing: it passes signals on, and starts the supervisor anew if it was killed. The new one
finds the attempt without an end and counts it against the crash budget, as any kill.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

PASSED_ON = frozenset({signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP})

_PR_SET_PDEATHSIG = 1  # prctl(2)
_QUICK = 60.0  # seconds; one that is killed sooner than that has not come far
_MOST_QUICK = 5  # in a row: the budgets, which the supervisor keeps, may never be read
_SLURMS_KILL = 5.0  # seconds in which Slurm has killed all processes of a batch step
_BACK_OFF = 2.0  # seconds; times two for each further one


def guard(supervise: Callable[[], int], environ: Mapping[str, str] = os.environ) -> int:
    """Runs `supervise` in a child, again if it is killed; returns its exit code.

    Outside of a Slurm job it is simply called. Call this early: the fork copies what was
    imported so far. Returns in the child too, where errors then go their usual way.
    """
    if not environ.get("SLURM_JOB_ID"):
        return supervise()
    # From here on no signal can kill: not this process, not a child that is still importing.
    # The child lets them in when it is ready for them (`Wakeups`).
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*PASSED_ON, signal.SIGCHLD})
    told: int | None = None  # the last signal, for a child that missed it
    quick = 0
    while True:
        begun = time.monotonic()
        child = _fork(told)
        if child == 0:
            if signal.SIGCHLD not in before:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
            return supervise()
        code, told = _watch(child, told)
        if code >= 0:
            return code
        if (code, told) == (-signal.SIGKILL, signal.SIGTERM):
            # As Slurm ends a job: ours comes in a moment, and one that is started meanwhile would
            # claim an attempt that nobody lets run.
            time.sleep(_SLURMS_KILL)
        quick = quick + 1 if time.monotonic() - begun < _QUICK else 0
        name = _name(-code)
        if quick >= _MOST_QUICK:
            _say(f"the supervisor was killed by {name} {quick} times in a row: giving up")
            return 1
        _say(f"the supervisor was killed by {name}: starting it anew")
        if quick > 1:
            received = signal.sigtimedwait(PASSED_ON, _BACK_OFF * 2 ** (quick - 2))
            told = received.si_signo if received is not None else told


def _fork(told: int | None) -> int:
    """Forks; the child dies of TERM with its parent, and is told what its predecessor was."""
    parent = os.getpid()
    libc = ctypes.CDLL(None)  # loaded before the fork
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
        if told is not None:
            os.kill(os.getpid(), told)  # blocked: it waits until the child is ready
    return child


def _watch(child: int, told: int | None) -> tuple[int, int | None]:
    """Waits for the child; its exit code (negative: the signal) and the last signal passed on."""
    while True:
        received = signal.sigwaitinfo({*PASSED_ON, signal.SIGCHLD}).si_signo
        if received != signal.SIGCHLD:
            told = received
            with suppress(ProcessLookupError):  # it is not reaped yet: the pid is its own
                os.kill(child, received)
            continue
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid == child:
            return os.waitstatus_to_exitcode(status), told


def _name(number: int) -> str:
    with suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"


def _say(message: str) -> None:
    with suppress(OSError, ValueError):
        sys.stderr.write(f"clusterseg: {message}\n")
        sys.stderr.flush()
