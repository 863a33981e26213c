"""Ends the ranks of a supervisor whose heartbeat stands still: the one that can't do so itself.

Storage that hangs (a hard NFS mount, a frozen file system) holds a process inside of the kernel,
where it sees no clock and no signal, while its ranks run on without a lease. So a second process
watches: forked before any file of the run is open, with all that it needs in memory. It touches
/proc and sends signals, and is told of each beat through a socket. A thread would not do: it
waits for the interpreter's lock, which Python holds while it starts a program from a file system
that hangs.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NoReturn

import msgspec

from clusterseg.cluster.processes import (
    ProcessId,
    is_alive,
    process_id,
    processes_with_environment,
    send_signal,
)
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.takeover import boot_clock
from clusterseg.supervise.launch import Launcher, attempt_variables, end_what_is_left
from clusterseg.supervise.limits import FenceTerms, Overdue
from clusterseg.supervise.own_folder import remove_own_folder

_LARGEST = 1 << 16  # bytes of a message


class _Guarded(msgspec.Struct, frozen=True):
    run: str
    attempt: int
    launcher: ProcessId

    @property
    def paths(self) -> RunPaths:
        return RunPaths(Path(self.run))


class _News(msgspec.Struct, frozen=True):
    """All that there is to know, so that a message may get lost."""

    beat: float
    guarded: _Guarded | None = None


class _Struck(msgspec.Struct, frozen=True):
    attempt: int
    silent: float


class Fence:
    """While entered, a second process stands by; the supervisor's side of it."""

    def __init__(self, terms: FenceTerms) -> None:
        self._terms = terms
        self._news = _News(boot_clock())
        self._struck: _Struck | None = None
        self._child: int | None = None
        self._socket: socket.socket | None = None

    def __enter__(self) -> Fence:
        """Raises OSError if there can be no further process."""
        self._start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def beaten(self, at: float) -> None:
        """The heartbeat is on the disk; `at` is when that was begun, by CLOCK_BOOTTIME."""
        self._tell(_News(at, self._news.guarded))

    def guard(self, run: RunPaths, attempt: int, launcher: Launcher) -> None:
        """From now on these are the ranks to end."""
        with suppress(ProcessLookupError):  # it has ended
            guarded = _Guarded(str(run.root), attempt, process_id(launcher.pid))
            self._tell(_News(self._news.beat, guarded))

    def release(self) -> None:
        """The ranks have ended."""
        self._tell(_News(self._news.beat))

    def struck(self, attempt: int) -> float | None:
        """How long the heartbeat had stood still when this attempt's ranks were ended for it."""
        if self._socket is None:
            self._revive()
        elif data := self._received(self._socket):
            self._struck = msgspec.json.decode(data, type=_Struck)
        if self._struck is None or self._struck.attempt != attempt:
            return None
        return self._struck.silent

    def _received(self, receiving: socket.socket) -> bytes:
        try:
            data = receiving.recv(_LARGEST)
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        if not data:
            self._revive()
        return data

    def _tell(self, news: _News) -> None:
        self._news = news
        try:
            if self._socket is not None:
                self._socket.send(msgspec.json.encode(news))
        except BlockingIOError:  # it is stopped, and knows by the next message
            pass
        except OSError:
            self._revive()

    def _revive(self) -> None:
        """Somebody killed it."""
        self._end()
        with suppress(OSError):  # tried again at the next look
            self._start()

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for side in (ours, theirs):
            side.setblocking(False)
        # In the child they stay blocked: what ends or stops the supervisor must not reach it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            child = os.fork()
            if child == 0:
                ours.close()
                _stand_by(theirs, self._terms, self._news)
        except OSError:
            ours.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()
        with suppress(OSError):  # here and there: neither side may come too late
            os.setpgid(child, child)
        self._child, self._socket = child, ours

    def _end(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._child is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._child, signal.SIGKILL)  # and one that still waits to say a word
            with suppress(ChildProcessError):
                os.waitpid(self._child, 0)
            self._child = None


def _stand_by(told: socket.socket, terms: FenceTerms, news: _News) -> NoReturn:
    """The life of the second process."""
    try:
        os.setpgid(0, 0)  # a stop of the supervisor's group is what it is there for
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        watchman = _Watchman(told, terms, news)
        watchman.watch()
        watchman.tidy()
    finally:
        with suppress(OSError):
            os.killpg(os.getpid(), signal.SIGKILL)
        os._exit(1)


class _Watchman:
    """While it watches it touches no file that is not in /proc, nor anything that could wait for
    one."""

    def __init__(self, told: socket.socket, terms: FenceTerms, news: _News) -> None:
        self._told, self._terms = told, terms
        self._overdue = Overdue(terms, boot_clock())
        self._news = news
        self._known: list[ProcessId] = []
        self._struck: int | None = None  # the attempt

    def watch(self) -> None:
        """Returns when the supervisor has ended: the kernel signals the launcher then."""
        poll = select.poll()
        poll.register(self._told, select.POLLIN)
        while True:
            poll.poll(self._terms.tick * 1000)
            if not self._hear():
                return
            now = boot_clock()
            guarded = self._news.guarded
            if not self._overdue.look(now, self._news.beat) or guarded is None:
                continue
            if guarded.attempt != self._struck and any(map(is_alive, self._all(guarded))):
                self._struck = guarded.attempt
                self._strike(guarded, now - self._news.beat)

    def tidy(self) -> None:
        """After a supervisor that was killed; one that ends by itself ends this process first."""
        guarded = self._news.guarded
        if guarded is None:
            return
        until = time.monotonic() + self._terms.terminate
        while is_alive(guarded.launcher) and time.monotonic() < until:
            time.sleep(0.1)
        remove_own_folder(os.environ, guarded.paths, guarded.attempt)

    def _hear(self) -> bool:
        last = None
        try:
            while data := self._told.recv(_LARGEST):
                last = data
            return False
        except BlockingIOError:
            pass
        except OSError:
            return False
        if last is not None:
            self._news = msgspec.json.decode(last, type=_News)
            self._look_around(self._news.guarded)
        return True

    def _look_around(self, guarded: _Guarded | None) -> None:
        """Who there is to end: now, since to ask about a process that hangs may hang as well.

        Signal 0 does nothing, but for whatever it takes to send one to be in memory.
        """
        self._known = []
        if guarded is not None:
            variables = attempt_variables(guarded.paths, guarded.attempt)
            self._known = processes_with_environment(variables)
            self._signal_group(guarded, 0)
            for process in self._known:
                send_signal(process, 0)

    def _strike(self, guarded: _Guarded, silent: float) -> None:
        """As the supervisor does it: TERM, for an mpirun to end its ranks on all hosts; KILL."""
        with suppress(OSError):
            self._told.send(msgspec.json.encode(_Struck(guarded.attempt, silent)))
        self._signal_group(guarded, signal.SIGTERM)
        self._say(f"no heartbeat could be written for {silent:.0f} s: ending the ranks")
        until = time.monotonic() + self._terms.terminate
        while time.monotonic() < until and any(map(is_alive, self._all(guarded))):
            time.sleep(0.1)
        self._signal_group(guarded, signal.SIGKILL)
        for process in self._known:
            send_signal(process, signal.SIGKILL)
        end_what_is_left(guarded.paths, guarded.attempt, within=self._terms.cleanup)

    def _all(self, guarded: _Guarded) -> list[ProcessId]:
        return [guarded.launcher, *self._known]

    @staticmethod
    def _signal_group(guarded: _Guarded, number: int) -> None:
        # Only while its leader lives: later the number may be another group's.
        if is_alive(guarded.launcher):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(guarded.launcher.pid, number)

    def _say(self, message: str) -> None:
        """From a process of its own: standard error may be a file on the storage that hangs."""
        with suppress(OSError):
            if os.fork() == 0:
                self._told.close()
                with suppress(OSError):
                    os.write(2, f"clusterseg: {message}\n".encode())
                os._exit(0)
