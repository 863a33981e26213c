"""Real ranks under the real supervisor, one of them stopped: who is named, and who says where it
stood."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from pathlib import Path

import msgspec
import pytest

from clusterseg.plan.model import Plan
from clusterseg.runs import making
from clusterseg.runs.eventlog import iter_events
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Identity, RankStart, Steps
from clusterseg.submit.request import read_request
from tests.supervise.runs import QUICK, _files, attempt, end_of, finish, wait_until
from tests.train.runs import BIN, job

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

PROGRAM = str(BIN / "clusterseg")
# The trainer; in rank 0 with limits as much below the supervisor's as its own are below Hang()'s.
RANK = """
import os, sys, time
from pathlib import Path
from clusterseg.train import watchdog
from clusterseg.train.communicator.mpi import MpiCommunicator
from clusterseg.train.rank import run
watched = os.environ["OMPI_COMM_WORLD_RANK"] == "0"
watchdog.LIMITS = watchdog.Limits(startup=5000, base=4 if watched else 5000, factor=3)
reduce = MpiCommunicator._sum_float32
def slowly(self, vector):  # so that an epoch lasts
    time.sleep(0.5)
    return reduce(self, vector)
MpiCommunicator._sum_float32 = slowly
sys.exit(run(Path(sys.argv[1])))
"""
HANG = {"startup": 900.0, "base": 16.0, "factor": 6.0, "validation": 900.0}


def training(folder: Path, data: Path) -> RunPaths:
    """A run directory as `submit` makes it, of three ranks that train for a long time."""
    keys = job(data, epochs=1000, batch_size=1)  # 12 steps an epoch
    keys |= {
        "checkpoint": {"every": "10m"},
        "resources": {"nodes": 1, "ranks_per_node": 3, "cpus_per_rank": 1},
        "placement": {"oversubscribe": True, "bind_to": "none", "verify": "off"},
        "restart": {"crash": 0},
    }
    keys["train"]["communicator"] = "mpi"
    keys["train"]["model"] = {"name": "fastscnn", "width": 0.25}
    file = folder / "job.yaml"
    file.write_text(json.dumps(keys))
    plan = read_request(file)
    run = making.choose_run(folder / "runs", plan.name, time.time())
    identity = Identity(key="k", uid=os.getuid(), name=plan.name, created=time.time())
    making.create_run(run, identity, _files(run, plan, 0))
    return run


def launch_line(run: RunPaths) -> list[str]:
    """The plan's own, with another program than `clusterseg train`."""
    plan = msgspec.json.decode(run.submission(0).plan.read_bytes(), type=Plan)
    (at,) = [
        at for at, word in enumerate(plan.argv) if word == "train" and plan.argv[at - 1] == PROGRAM
    ]
    return [*plan.argv[: at - 1], sys.executable, "-c", RANK, str(run.root)]


def windows(run: RunPaths, rank: int) -> int:
    """How many a rank has written."""
    file = run.attempt(0).events(rank)
    return sum(isinstance(one, Steps) for one in iter_events(file)) if file.exists() else 0


def test_a_stopped_rank_is_named_and_the_others_have_said_where_they_wait(
    data: Path, tmp_path: Path
) -> None:
    run = training(tmp_path, data)
    with attempt(run, {**QUICK, "hang": HANG}, launch=launch_line(run)) as process:
        # Two windows: the first one, which holds the compilation, counts until there is another. A
        # busy machine loads TensorFlow slowly.
        wait_until(lambda: min(windows(run, rank) for rank in range(3)) > 1, "all step", 900)
        (start,) = [
            one for one in iter_events(run.attempt(0).events(1)) if isinstance(one, RankStart)
        ]
        os.kill(start.pid, signal.SIGSTOP)
        code, said = finish(process, 600)
    assert code == 1, said
    end = end_of(run, 0)
    assert (end["cause"], end["failed_rank"]) == ("hang", 1), end
    assert "its process is stopped" in end["error"]
    watched, stopped, other = (run.attempt(0).log(rank).read_text() for rank in range(3))
    by_itself = re.search(r"^Timeout \(0:00:\d\d", watched, re.MULTILINE)
    assert by_itself, watched
    for stacks in (watched[by_itself.start() :], other):  # this one was asked, on this host only
        assert "_sum_float32" in stacks and "loop.py" in stacks  # of all threads
    assert "Timeout" not in other  # the twin: limits above the supervisor's
    assert "Timeout" not in stopped and "loop.py" not in stopped  # it can do nothing
