"""The process of a sweep without a scheduler: starts the runs, so many at a time.

`python -m clusterseg.submit.sequence LEADER`. Each run is a job of its own, started as `submit`
starts it, and once: what was cancelled or resumed meanwhile is passed over. Killed, it leaves runs
that are known as never started.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from clusterseg.cluster import processes
from clusterseg.cluster.local import job_process
from clusterseg.errors import ClustersegError
from clusterseg.runs.paths import RunPaths
from clusterseg.submit.array_record import read_array
from clusterseg.submit.submission import start

LOOK = 1.0  # seconds between two looks at the jobs


def run_sequence(
    leader: RunPaths, environ: Mapping[str, str], say: Callable[[str], None], look: float = LOOK
) -> None:
    """Starts every run of the sweep and waits for all. Raises ClustersegError."""
    array = read_array(leader)
    running: list[str] = []
    for submission, _ in array.members(leader):
        while len(running) >= (array.throttle or 1):
            time.sleep(look)
            running = [job_id for job_id in running if _lives(job_id)]
        run = RunPaths(submission.folder.parent.parent)
        try:
            started = start(run, submission, environ)
        except ClustersegError as error:  # started or cancelled by somebody else, or gone
            say(f"{run.run_id}: {error.message}")
            continue
        say(f"{run.run_id} is {started.job_id}")
        running.append(started.job_id)
    while running:
        time.sleep(look)
        running = [job_id for job_id in running if _lives(job_id)]


def _lives(job_id: str) -> bool:
    process = job_process(job_id)
    return process is not None and processes.is_alive(process) is not False


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    try:
        run_sequence(RunPaths(Path(sys.argv[1])), os.environ, _say)
    except ClustersegError as failure:
        _say(failure.render())
        sys.exit(failure.exit_code)
