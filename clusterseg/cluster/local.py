"""Jobs without a scheduler: a batch script as a process that outlives the terminal.

The job's id names its process for good (host, pid, start time), and is recorded by that process
itself before it becomes the batch script: there is no moment at which a job runs that nobody
can find, whenever the client is killed. The file with the id can be made once only, so that of
two clients that start the same submission one does.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from msgspec import Struct

from clusterseg.cluster import processes
from clusterseg.cluster.processes import ProcessId
from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.runs.records import Claim
from clusterseg.runs.state import Life

_JOB_ID = re.compile(r"local-(?P<host>.+)-(?P<pid>\d+)-(?P<start>\d+)")
_ANSWER = 3  # the grandchild's descriptor of the pipe to the client; exec closes it
_STARTED, _REFUSED, _FAILED = b"+", b"=", b"-"


class LocalJob(Struct, frozen=True):
    """What is started. The program in `argv` is absolute; `output` takes stdout and stderr."""

    argv: Sequence[str]
    directory: Path
    environ: Mapping[str, str]
    output: Path


def start_job(job: LocalJob, record: Callable[[str], None]) -> str:
    """Starts a detached process; returns the job id.

    The process has a session of its own, empty stdin, and appends to `output` (0600). It calls
    `record(job_id)` before it becomes the program: FileExistsError there means that somebody
    else started the submission. Raises ClustersegError if so, or if it can't start.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        # The grandchild is nobody's child once this one is gone: no zombie is left to anyone.
        try:
            if os.fork() == 0:
                _become(job, record, writing)
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    return _understood(answer, job.argv[0])


def job_process(job_id: str) -> ProcessId | None:
    """The process of a local job, as of this boot; None if the id is not that of one."""
    match = _JOB_ID.fullmatch(job_id)
    if match is None:
        return None
    return ProcessId(
        host=match["host"],
        boot_id=processes.boot_id(),
        pid=int(match["pid"]),
        start=int(match["start"]),
    )


def claim_process(claim: Claim) -> ProcessId:
    """The supervisor that wrote a claim."""
    return ProcessId(host=claim.host, boot_id=claim.boot_id, pid=claim.pid, start=claim.pid_start)


class LocalLives:
    """Says who lives on this host; about other hosts and schedulers it knows nothing."""

    def job(self, job_id: str) -> Life:
        process = job_process(job_id)
        return Life.UNKNOWN if process is None else _life(process)

    def holder(self, claim: Claim) -> Life:
        return _life(claim_process(claim))


def _life(process: ProcessId) -> Life:
    alive = processes.is_alive(process)
    if alive is None:
        return Life.UNKNOWN
    return Life.ALIVE if alive else Life.DEAD


def _become(job: LocalJob, record: Callable[[str], None], answer: int) -> NoReturn:
    """In the grandchild: turns this process into the job, and says how that went. Never returns."""
    try:
        _keep_only(answer)
        os.setsid()  # no terminal, no hang-up, and Ctrl-C goes to others
        _default_signals()
        _redirect(job.output)
        os.chdir(job.directory)
        job_id = processes.local_job_id(processes.this_process())
        try:
            record(job_id)
        except FileExistsError:
            os.write(_ANSWER, _REFUSED + b"\n")
            os._exit(0)
        os.write(_ANSWER, _STARTED + job_id.encode() + b"\n")
        os.execve(job.argv[0], list(job.argv), dict(job.environ))  # noqa: S606 (argv, no shell)
    except BaseException as error:  # whatever it is, the client is told, and nothing runs twice
        os.write(_ANSWER, _FAILED + str(error).encode(errors="replace") + b"\n")
    finally:
        os._exit(127)


def _default_signals() -> None:
    """Python ignores SIGPIPE, and callers may ignore or block others: exec would keep that."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) is not signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _keep_only(answer: int) -> None:
    """Closes what was inherited: a pipe of ssh or make would be held open for days."""
    if answer != _ANSWER:
        os.dup2(answer, _ANSWER, inheritable=False)
    os.closerange(_ANSWER + 1, os.sysconf("SC_OPEN_MAX"))


def _redirect(output: Path) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    os.fchmod(log, 0o600)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
        os.set_inheritable(target, True)


def _understood(answer: bytes, program: str) -> str:
    """The job id in what the grandchild said; raises ClustersegError for anything else."""
    said = {line[:1]: line[1:].decode(errors="replace") for line in answer.splitlines()}
    if _REFUSED in said:
        raise ClustersegError("the job was started by another process", code="already-started")
    if _FAILED in said or _STARTED not in said:
        reason = said.get(_FAILED, "the new process was killed")
        raise ClustersegError(
            f"{program} could not be started: {reason}",
            code="not-started",
            exit_code=ExitCode.CLUSTER,
        )
    return said[_STARTED]
