"""The launch line as a process: started, read, signalled, and surely ended with all it left."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress

from clusterseg.cluster.children import die_with_parent
from clusterseg.cluster.processes import processes_with_environment, send_signal
from clusterseg.plan.model import HOSTFILE, LAUNCHER_FOLDER, RUN_DIR, Plan
from clusterseg.plan.symbols import filled_line
from clusterseg.plan.variables import SEARCH_VARIABLES
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.text import one_line

RUN_VARIABLE = "CLUSTERSEG_RUN_DIR"
ATTEMPT_VARIABLE = "CLUSTERSEG_ATTEMPT"
STOP_VARIABLE = "CLUSTERSEG_STOP_FILE"
# MPICH's mpiexec (4.3.2, 5.0.2) never finds the last variable of its environment in -genvlist.
_LAST = "CLUSTERSEG_LAST"

KEPT_LINES = 400
_LONGEST_LINE = 2000


class Launcher:
    """A running launch line, leader of a process group of its own."""

    def __init__(
        self, argv: Sequence[str], environ: Mapping[str, str], directory: str, *, direct: bool
    ) -> None:
        """Starts it. Raises OSError.

        `direct`: what is started becomes the rank itself. If the supervisor is killed the kernel
        signals what it started: TERM makes an mpirun end its ranks on all hosts (KILL would
        orphan them), a lone rank is killed.
        """
        reading, writing = os.pipe2(os.O_CLOEXEC)
        try:
            self._process = self._start(argv, environ, directory, writing, direct=direct)
        except OSError:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        self.pidfd = os.pidfd_open(self._process.pid)
        self._output: int | None = reading
        os.set_blocking(reading, False)
        self._carry = b""
        self._total = 0
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)

    @property
    def pid(self) -> int:
        """Its process, and its process group."""
        return self._process.pid

    @property
    def descriptors(self) -> list[int]:
        """Readable when there is something to do."""
        return [self.pidfd] if self._output is None else [self.pidfd, self._output]

    def ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def exit_code(self) -> int | None:
        """The exit code, None if a signal ended it (or it runs)."""
        code = self._process.returncode
        return code if code is not None and code >= 0 else None

    @property
    def signal(self) -> int | None:
        code = self._process.returncode
        return -code if code is not None and code < 0 else None

    def send(self, number: int) -> None:
        """Signals the process group."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def read_lines(self) -> list[str]:
        """What it has printed since the last call, by lines, printable and capped."""
        data = self._carry + self._read()
        *whole, self._carry = data.split(b"\n")
        if len(self._carry) > _LONGEST_LINE or (self._output is None and self._carry):
            whole.append(self._carry)
            self._carry = b""
        lines = [
            one_line(line.decode("utf-8", "backslashreplace"), _LONGEST_LINE) for line in whole
        ]
        self.lines.extend(lines)
        return lines

    def drain(self) -> list[str]:
        """The lines that are still in the pipe when it has ended; others may hold it open."""
        lines = self.read_lines()
        for _ in range(64):
            before = self._total
            lines += self.read_lines()
            if self._total == before:
                break
        return lines

    def end(self) -> bool:
        """Makes sure that it has ended; whether it had to be killed."""
        if self.ended():
            return False
        self.send(signal.SIGKILL)
        self._process.wait()
        return True

    def close(self) -> None:
        """Lets go of the descriptors; the process must have ended."""
        os.close(self.pidfd)
        if self._output is not None:
            os.close(self._output)
            self._output = None

    @staticmethod
    def _start(
        argv: Sequence[str],
        environ: Mapping[str, str],
        directory: str,
        output: int,
        *,
        direct: bool,
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            list(argv),
            env=dict(environ),
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            process_group=0,  # a signal for the supervisor's group is the supervisor's to handle
            # The supervisor has no threads, and the child only calls prctl and getppid.
            preexec_fn=die_with_parent(  # noqa: PLW1509
                signal.SIGKILL if direct else signal.SIGTERM
            ),
        )

    def _read(self) -> bytes:
        if self._output is None:
            return b""
        try:
            data = os.read(self._output, 1 << 16)
        except BlockingIOError:
            return b""
        self._total += len(data)
        if not data:  # closed by all who held it; never to be waited for again
            os.close(self._output)
            self._output = None
        return data


def end_what_is_left(
    run: RunPaths, attempt: int, *, within: float = 5.0, after: float = 0.0
) -> int:
    """Kills this user's processes on this host that belong to an attempt; returns how many.

    Its launcher has ended, so nobody else would: a killed mpirun orphans its ranks. Those that
    are about to end have `after` seconds to do so (mpirun does not wait for the srun by which it
    starts its daemons). Looked at until none is left, since a dying process may just have
    started another.
    """
    wanted = attempt_variables(run, attempt)
    ended = set()
    until = time.monotonic() + after
    while time.monotonic() < until and processes_with_environment(wanted):
        time.sleep(0.05)
    until = time.monotonic() + within
    while (left := processes_with_environment(wanted)) and time.monotonic() < until:
        for process in left:
            if send_signal(process, signal.SIGKILL):
                ended.add(process)
        time.sleep(0.05)
    return len(ended)


def launch_argv(argv: Sequence[str], plan: Plan, run: RunPaths, attempt: int) -> tuple[str, ...]:
    """The launch line with its symbols replaced; words of the user's own command stay."""
    own = run.attempt(attempt)
    symbols = {
        RUN_DIR: str(run.root),
        HOSTFILE: str(own.hostfile),
        LAUNCHER_FOLDER: str(own.launcher),
    }
    return filled_line(argv, plan, symbols)


def rank_environment(
    environ: Mapping[str, str], plan: Plan, run: RunPaths, attempt: int
) -> dict[str, str]:
    """What the launcher and its ranks are started with.

    The batch script has unset and set what the plan says, and what a person changed in it
    stands; the plan fills in for an `attempt` that was started without it.
    """
    stop_file = {STOP_VARIABLE: str(run.stop_file(attempt))}
    # What the line passes on must be there: mpirun's warning would be its first word, and so be
    # taken for the reason of a failure.
    named = dict.fromkeys((name for name in SEARCH_VARIABLES if _names(plan.argv, name)), "")
    own = {**attempt_variables(run, attempt), **stop_file}
    variables = {**named, **plan.environment, **environ, **own}
    variables.pop(_LAST, None)  # of a run that started this one: it would keep that one's place
    return {**variables, _LAST: "1"}


def _names(line: Sequence[str], variable: str) -> bool:
    """Whether a launch line names a variable, alone or in a list."""
    return any(variable in word.split(",") for word in line)


def attempt_variables(run: RunPaths, attempt: int) -> dict[str, str]:
    """By these variables the processes of an attempt are known."""
    return {RUN_VARIABLE: str(run.root), ATTEMPT_VARIABLE: str(attempt)}
