"""Processes of this host: who they are, whether they live, and how to end them surely.

A process id alone names nobody, since the kernel uses it again: a process is (host, boot id,
pid, start time in clock ticks since boot). Signals go through a pidfd, whose process is checked
after it was opened, so that they can't reach a stranger. Linux only.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class ProcessId:
    """One process for good. `start` is field 22 of /proc/PID/stat (proc(5)), in clock ticks."""

    host: str
    boot_id: str
    pid: int
    start: int


def this_process() -> ProcessId:
    """The calling process. It stays the same over exec."""
    return process_id(os.getpid())


def process_id(pid: int) -> ProcessId:
    """The process that has this pid now. Raises ProcessLookupError."""
    start = start_ticks(pid)
    if start is None:
        raise ProcessLookupError(f"there is no process {pid}")
    return ProcessId(host=host_name(), boot_id=boot_id(), pid=pid, start=start)


def host_name() -> str:
    """This host's name without its domain, as Slurm and the ranks say it."""
    return os.uname().nodename.split(".")[0]


def boot_id() -> str:
    """Changes with every boot; containers of one host share it."""
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def start_ticks(pid: int) -> int | None:
    """When a process started; None if there is none, or it has ended and is not reaped yet."""
    try:
        stat = (_PROC / str(pid) / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in parentheses may itself hold blanks and parentheses.
    fields = stat[stat.rindex(b")") + 1 :].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def process_state(pid: int) -> str:
    """The letter in /proc/PID/stat (R, S, D, T, Z, …), or "gone"."""
    try:
        stat = (_PROC / str(pid) / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return "gone"
    return stat[stat.rindex(b")") + 1 :].split()[0].decode("ascii", "replace")


def is_alive(process: ProcessId) -> bool | None:
    """Whether it runs; None if it can't be told from here: it belongs to another host."""
    if process.host != host_name():
        return None
    if process.boot_id != boot_id():
        return False
    return start_ticks(process.pid) == process.start


def send_signal(process: ProcessId, number: int) -> bool:
    """Signals this very process; False if it has ended (or is of another host)."""
    if not is_alive(process):
        return False
    with suppress(ProcessLookupError), _pidfd(process.pid) as descriptor:
        if start_ticks(process.pid) == process.start:  # still, now that the pid is held
            signal.pidfd_send_signal(descriptor, number)
            return True
    return False


def local_job_id(process: ProcessId) -> str:
    """The job id of a supervisor without a scheduler: `local-<host>-<pid>-<start ticks>`."""
    return f"local-{process.host}-{process.pid}-{process.start}"


def oom_kills() -> int | None:
    """How many processes of this cgroup (and below) the kernel has killed for want of memory.

    None where that can't be read. Control groups version 2 (memory.events) and 1
    (memory.oom_control, since Linux 4.13).
    """
    try:
        lines = (_PROC / "self/cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            file = _CGROUPS / path.lstrip("/") / "memory.events"
        elif "memory" in controllers.split(","):
            file = _CGROUPS / "memory" / path.lstrip("/") / "memory.oom_control"
        else:
            continue
        with suppress(OSError, ValueError, IndexError):
            for entry in file.read_text().splitlines():
                name, value = entry.split()
                if name == "oom_kill":
                    return int(value)
    return None


def processes_with_environment(wanted: Mapping[str, str]) -> list[ProcessId]:
    """This user's processes, but for the caller, that were started with these variables.

    What a launcher leaves behind when it is killed is no child of anybody and may have left its
    process group, but it keeps the environment it was started with. Only those on this host: a
    process in another UTS namespace has another host's name, and whoever speaks for that host
    judges it.
    """
    entries = {f"{name}={value}".encode() for name, value in wanted.items()}
    found = []
    here = (_PROC / "self/ns/uts").readlink()
    for pid in _own_pids():
        try:
            if (_PROC / str(pid) / "ns/uts").readlink() != here:
                continue
            # The start time first: if the pid is used again in between, it names the old process.
            process = process_id(pid)
            environment = (_PROC / str(pid) / "environ").read_bytes()
        except OSError:
            continue
        if entries <= set(environment.split(b"\0")):
            found.append(process)
    return found


def _own_pids() -> Iterator[int]:
    user, me = os.geteuid(), os.getpid()
    with os.scandir(_PROC) as entries:
        for entry in entries:
            with suppress(OSError):
                if entry.name.isdigit() and int(entry.name) != me and entry.stat().st_uid == user:
                    yield int(entry.name)


@contextmanager
def _pidfd(pid: int) -> Iterator[int]:
    descriptor = os.pidfd_open(pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
