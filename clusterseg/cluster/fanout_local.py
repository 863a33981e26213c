"""The jobs of a fan-out as processes of this host, through submitit's local executor."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from clusterseg.cluster.fanout_folder import Folder, Share
from clusterseg.cluster.fanout_jobs import Job, environment, load_submitit
from clusterseg.cluster.fanout_worker import run_tasks
from clusterseg.cluster.processes import this_process
from clusterseg.cluster.slurm.environment import scrubbed
from clusterseg.cluster.topology import this_host
from clusterseg.runs.files import FILE_MODE

_NO_LIMIT = 10 * 365 * 24 * 60.0  # minutes; submitit wants one
_PATIENCE = 10.0  # s that a cancelled job has to end: submitit kills its task after one


class LocalJobs:
    """As many processes at once as the cores that this one may use allow, each with `cpus`."""

    def __init__(self, cpus: int = 1, environ: Mapping[str, str] = os.environ) -> None:
        self._cpus = cpus
        self._environ = {**scrubbed(environ), "OMP_NUM_THREADS": str(cpus)}
        self.slots = max(1, (this_host().cores or 1) // cpus)
        self.note = ""

    def start(self, folder: Folder, shares: Sequence[Share]) -> list[Job]:
        executor = load_submitit().LocalExecutor(folder.jobs)
        executor.update_parameters(timeout_min=_NO_LIMIT)
        started: list[Job] = []
        me = this_process()
        try:
            with environment(self._environ), _aside(folder.path / "controllers.log"):
                for share in shares:
                    handle = executor.submit(run_tasks, str(folder.path), share, me)
                    started.append(Job(handle.job_id, share, handle))
        except BaseException:
            self.cancel(started)
            raise
        return started

    def ended(self, jobs: Sequence[Job]) -> dict[str, str]:
        return {job.id: "" for job in jobs if job.handle.done()}

    def cancel(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            job.handle.cancel()
        deadline = time.monotonic() + _PATIENCE
        for job in jobs:
            process = _process(job.handle)
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)  # its task ends when this process does
                process.wait()


def _process(handle: Any) -> subprocess.Popen[bytes]:
    process: subprocess.Popen[bytes] = handle._process
    return process


@contextmanager
def _aside(log: Path) -> Iterator[None]:
    """What is started meanwhile has no terminal: submitit's controllers inherit ours, would read
    from it, and print a traceback on it when they are cancelled."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    opened = [os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), os.open(log, flags, FILE_MODE)]
    kept: dict[int, int] = {}
    try:
        for number in (0, 1, 2):
            with suppress(OSError):  # closed: nothing to keep
                kept[number] = os.dup(number)
            os.dup2(opened[0] if number == 0 else opened[1], number)
        yield
    finally:
        for number in (0, 1, 2):
            if number in kept:
                os.dup2(kept[number], number)
                os.close(kept[number])
            else:
                os.close(number)
        for descriptor in opened:
            os.close(descriptor)
