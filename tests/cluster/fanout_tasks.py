"""What the tests let jobs do; imported by the jobs themselves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from clusterseg.errors import ClustersegError, lasting


def double(n: int) -> dict[str, int]:
    return {"twice": 2 * n}


def interval(seconds: float) -> list[float]:
    begin = time.monotonic()
    time.sleep(seconds)
    return [begin, time.monotonic()]


def behave(n: int, how: str, marks: str) -> int:
    """`how`: good; raise or die, at the first try alone (once) or always."""
    mark = Path(marks, str(n))
    again = mark.exists()
    mark.touch()
    kind, _, when = how.partition(" ")
    if kind != "good" and not (again and when == "once"):
        print(f"task {n} is about to {kind}", file=sys.stderr, flush=True)
        if kind == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        raise ValueError(f"task {n} is no good")
    return n


def refuse(n: int, how: str, marks: str) -> int:
    """`how`: good; surely, or perhaps, a ClustersegError; of all, one that all share, at the first
    task. The others then sleep."""
    with Path(marks, str(n)).open("a") as calls:
        calls.write(".")
    error = ClustersegError(f"{n} {how}", code="refused", help="mend it", exit_code=1)
    if how == "surely":
        with lasting():
            raise error
    if how == "perhaps":
        raise error
    if how == "of all":
        error.is_lasting = error.is_of_all = n == 0
        if n:
            time.sleep(600)
        raise error
    return n


def sleep_unless_first(n: int) -> int:
    if n:
        time.sleep(600)
    return n


def no_json() -> object:
    return object()


def environment() -> dict[str, Any]:
    return {**os.environ, "cpus": len(os.sched_getaffinity(0))}


def cancel_itself() -> None:
    """Has its own Slurm job cancelled."""
    subprocess.run(["scancel", "--full", os.environ["SLURM_JOB_ID"]], check=True)
    time.sleep(600)


def requeue_itself() -> dict[str, str]:
    """Has its own Slurm job queued again at its first start."""
    if "SLURM_RESTART_COUNT" not in os.environ:
        array, task = os.environ["SLURM_ARRAY_JOB_ID"], os.environ["SLURM_ARRAY_TASK_ID"]
        subprocess.run(["scontrol", "requeue", f"{array}_{task}"], check=True)
        time.sleep(600)
    return {"restarts": os.environ["SLURM_RESTART_COUNT"]}


def wait_for(file: str) -> str:
    while not Path(file).exists():
        time.sleep(0.2)
    return "seen"
