"""Ranks as plain processes of this host, without an MPI: what `launcher: local` starts.

As an mpirun does, it binds its ranks, tells each who it is, tags their output, passes signals on,
and ends them all when one fails. Nothing of it looks again and again: it waits for its children.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from types import FrameType

from clusterseg.cluster.children import ENDING, PASSED_ON, die_with_parent, refusal_code
from clusterseg.cluster.output_queue import OutputQueue
from clusterseg.cluster.processes import host_name
from clusterseg.errors import ExitCode
from clusterseg.runs.text import ranges

GRACE = 5.0  # seconds between TERM and KILL
_LONGEST_LINE = 1 << 16  # bytes; a longer one is passed on in pieces


def start_ranks(
    argv: Sequence[str],
    cpus: Sequence[frozenset[int]],
    environ: Mapping[str, str],
    *,
    report: bool = False,
    grace: float = GRACE,
) -> int:
    """Runs a rank on each of `cpus` and returns what to exit with; a lone rank takes our place.

    The exit code is that of the first rank that failed, 128 + its signal if one killed it; else 75
    if one stopped resumably; else 0. With `report` every rank's CPUs are printed first. After a
    failure the others get TERM, and KILL `grace` seconds later. If this process is killed, the
    kernel kills the ranks.
    """
    if report:
        for rank, mine in enumerate(cpus):
            shown = ranges(mine, between=",", longest=len(mine))
            sys.stdout.write(f"rank {rank} bound to CPUs {shown}\n")
        sys.stdout.flush()
    if len(cpus) == 1:
        os.sched_setaffinity(0, cpus[0])
        try:
            os.execvpe(argv[0], list(argv), _variables(environ, 0, 1))  # noqa: S606
        except OSError as error:
            return _refused(argv[0], error)
    ranks = _Ranks(grace)
    try:
        return ranks.run(argv, cpus, environ)
    finally:
        ranks.close()


class _Rank:
    """One process, and what it has printed of a line."""

    def __init__(self, number: int, process: subprocess.Popen[bytes], output: int) -> None:
        self.number, self.process, self.output = number, process, output
        self.pidfd = os.pidfd_open(process.pid)
        self.carry = b""
        self.closed = self.watched = False  # its output

    @property
    def runs(self) -> bool:
        """Until it was waited for; so long nobody else has its process id."""
        return self.process.returncode is None

    def send(self, number: int) -> None:
        """Signals its process group."""
        if self.runs:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, number)


class _Ranks:
    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._ranks: list[_Rank] = []
        self._selector = selectors.PollSelector()  # unlike epoll it takes files too
        self._output = OutputQueue(1)
        self._writing = False
        self._early: list[int] | None = []  # signals that came before all ranks were there
        self._ending = False
        self._deadline: float | None = None  # after which KILL follows
        self._failed: int | None = None
        self._waking, self._woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before = signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        for number in PASSED_ON:
            signal.signal(number, self._heard)
        self._watch(self._waking, self._drain_wakeups)

    def run(
        self, argv: Sequence[str], cpus: Sequence[frozenset[int]], environ: Mapping[str, str]
    ) -> int:
        allowed = os.sched_getaffinity(0)
        try:
            for number, mine in enumerate(cpus):
                # A child has the affinity that its parent had when it was started.
                os.sched_setaffinity(0, mine)
                self._start(argv, number, _variables(environ, number, len(cpus)))
        except OSError as error:
            self._end_all()
            return _refused(argv[0], error)
        finally:
            os.sched_setaffinity(0, allowed)
        early, self._early = self._early or [], None
        for number in early:
            self._pass_on(number)
        while any(rank.runs for rank in self._ranks):
            self._wait()
        self._flush()
        if self._failed is not None:
            return self._failed
        codes = {rank.process.returncode for rank in self._ranks}
        return ExitCode.STOPPED if ExitCode.STOPPED in codes else ExitCode.OK

    def close(self) -> None:
        """Ends what is left, and lets go of everything."""
        self._end_all()
        for rank in self._ranks:
            os.close(rank.pidfd)
            os.close(rank.output)
        signal.set_wakeup_fd(self._before)
        self._selector.close()
        os.close(self._waking)
        os.close(self._woken)

    def _start(self, argv: Sequence[str], number: int, environ: Mapping[str, str]) -> None:
        reading, writing = os.pipe2(os.O_CLOEXEC)
        try:
            process = subprocess.Popen(
                list(argv),
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
                process_group=0,  # a signal for our group is ours to pass on, once
                # There are no threads, and the child only calls prctl and getppid.
                preexec_fn=die_with_parent(signal.SIGKILL),  # noqa: PLW1509
            )
        except OSError:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        os.set_blocking(reading, False)
        rank = _Rank(number, process, reading)
        self._ranks.append(rank)
        self._set_watches()
        self._watch(rank.pidfd, partial(self._ended, rank))

    def _watch(self, descriptor: int, what: Callable[[], object]) -> None:
        self._selector.register(descriptor, selectors.EVENT_READ, what)

    def _wait(self) -> None:
        """Until something happens, or the grace is over."""
        left = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
        for key, _ in self._selector.select(left):
            if key.fileobj in self._selector.get_map():  # not taken away by one before
                key.data()
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self._deadline = None
            for rank in self._ranks:
                rank.send(signal.SIGKILL)
            self._output.drop()  # if it is not read until now, it never is
            self._set_watches()

    # Signals.

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if self._early is not None:
            self._early.append(number)
        else:
            self._pass_on(number)

    def _pass_on(self, number: int) -> None:
        for rank in self._ranks:
            rank.send(number)
        if number in ENDING:
            self._ends()

    def _ends(self) -> None:
        if not self._ending:
            self._ending = True
            self._deadline = time.monotonic() + self._grace

    def _drain_wakeups(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._waking, 1 << 12)

    # Ends.

    def _ended(self, rank: _Rank) -> None:
        self._selector.unregister(rank.pidfd)
        self._read(rank)  # what it said before its end stands before what is said of it
        code = rank.process.wait()
        if code in (ExitCode.OK, ExitCode.STOPPED) or self._failed is not None:
            return
        self._failed = code if code > 0 else 128 - code
        how = f"ended with exit code {code}" if code > 0 else f"was killed by signal {-code}"
        if not self._ending:  # else it was told to
            where = f"process {rank.process.pid} on {host_name()}"
            self._say(f"clusterseg ranks: rank {rank.number} ({where}) {how}\n".encode())
            for other in self._ranks:
                other.send(signal.SIGTERM)
            self._ends()

    def _end_all(self) -> None:
        for rank in self._ranks:
            rank.send(signal.SIGKILL)
            rank.process.wait()

    # Output.

    def _read(self, rank: _Rank) -> bool:
        """Takes what there is; whether it was something."""
        try:
            data = os.read(rank.output, 1 << 16)
        except BlockingIOError:
            return False
        if not data:  # closed by all who held it
            rank.closed = True
            self._set_watches()
            return False
        *whole, rank.carry = (rank.carry + data).split(b"\n")
        while len(rank.carry) >= _LONGEST_LINE:
            whole.append(rank.carry[:_LONGEST_LINE])
            rank.carry = rank.carry[_LONGEST_LINE:]
        tag = b"[%d] " % rank.number
        self._say(b"".join(tag + line + b"\n" for line in whole))
        return True

    def _read_rest(self, rank: _Rank) -> None:
        """What is still in the pipe when it has ended; another process may hold it open."""
        for _ in range(64):
            if not self._read(rank):
                break
        if rank.carry:
            self._say(b"[%d] %s\n" % (rank.number, rank.carry))

    def _say(self, text: bytes) -> None:
        self._output.put(text)
        self._set_watches()

    def _write(self) -> None:
        self._output.write()
        self._set_watches()

    def _set_watches(self) -> None:
        """Watches our output while something waits for it, and theirs while not too much does."""
        if self._output.waits != self._writing:
            self._writing = self._output.waits
            if self._writing:
                self._selector.register(self._output.descriptor, selectors.EVENT_WRITE, self._write)
            else:
                self._selector.unregister(self._output.descriptor)
        for rank in self._ranks:
            if rank.watched != (not rank.closed and not self._output.full):
                rank.watched = not rank.watched
                if rank.watched:
                    self._watch(rank.output, partial(self._read, rank))
                else:
                    self._selector.unregister(rank.output)

    def _flush(self) -> None:
        for rank in self._ranks:
            self._read_rest(rank)
            rank.closed = True
        self._set_watches()
        while self._output.waits:
            self._wait()


def _variables(environ: Mapping[str, str], rank: int, size: int) -> dict[str, str]:
    return {
        **environ,
        "CLUSTERSEG_RANK": str(rank),
        "CLUSTERSEG_LOCAL_RANK": str(rank),
        "CLUSTERSEG_WORLD_SIZE": str(size),
    }


def _refused(program: str, error: OSError) -> int:
    sys.stderr.write(f"clusterseg ranks: {program} can't be started: {error.strerror}\n")
    return refusal_code(error)
