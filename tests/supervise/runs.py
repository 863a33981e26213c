"""Runs of small programs under the real supervisor and the real mpirun, for these tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from clusterseg.cluster.processes import processes_with_environment
from clusterseg.plan.model import Plan
from clusterseg.plan.planner import fill
from clusterseg.runs import making
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Identity, Intent
from clusterseg.submit.request import read_request

PROGRAM = Path(__file__).with_name("rank_program.py")

# The supervisor with a quicker clock than the command line's.
_SCRIPT = """
import json, sys
from pathlib import Path
from clusterseg.runs.claims import Patience
from clusterseg.supervise.attempt import supervise
from clusterseg.supervise.limits import Hang, Timing
timing = json.loads(sys.argv[2])
patience, hang = Patience(**timing.pop("patience", {})), Hang(**timing.pop("hang", {}))
timing = Timing(patience=patience, hang=hang, **timing)
sys.exit(supervise(Path(sys.argv[1]), sys.argv[3:], timing=timing))
"""
QUICK = {"look": 0.2, "terminate": 2.0, "patience": {"interval": 0.3, "grace": 20.0, "look": 0.1}}


def make_run(folder: Path, *program: str, ranks: int = 2, **keys: Any) -> RunPaths:
    """A run directory as `submit` makes it, for `rank_program.py program…`."""
    folder.mkdir(exist_ok=True)
    job = folder / "job.yaml"
    command = [sys.executable, str(PROGRAM), *program]
    resources = {"nodes": 1, "ranks_per_node": ranks, **keys.pop("resources", {})}
    job.write_text(json.dumps({"name": "t", "command": command, "resources": resources, **keys}))
    plan = read_request(job)
    run = making.choose_run(folder / "runs", plan.name, time.time())
    identity = Identity(key="k", uid=os.getuid(), name=plan.name, created=time.time())
    making.create_run(run, identity, _files(run, plan, 0))
    return run


def resubmit(run: RunPaths, number: int = 1) -> None:
    """A further submission with the plan of the first, as `resume` makes it."""
    plan = msgspec.json.decode(run.submission(0).plan.read_bytes(), type=Plan)
    making.add_submission(run, _files(run, plan, number))


def _files(run: RunPaths, plan: Plan, number: int) -> making.SubmissionFiles:
    filled = fill(plan, run_dir=str(run.root))
    intent = Intent(
        t=time.time(),
        key="k",
        submission=number,
        scheduler="local",
        host="here",
        uid=os.getuid(),
    )
    return making.SubmissionFiles(
        job_yaml="", plan=msgspec.json.encode(filled), script=filled.script, intent=intent
    )


@contextmanager
def attempt(
    run: RunPaths,
    timing: Mapping[str, Any] = QUICK,
    launch: Sequence[str] = (),
    under: Sequence[str] = (),
) -> Iterator[subprocess.Popen[str]]:
    """A running supervisor. Fails if it ends and leaves anything behind; then it is killed.

    `under`: a program that becomes it, as `strace -D` does.
    """
    process = subprocess.Popen(
        [*under, sys.executable, "-c", _SCRIPT, str(run.root), json.dumps(timing), *launch],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
        assert process.poll() is None or ranks_of(run) == [], "processes were left behind"
    finally:
        process.kill()
        process.wait()
        if process.stderr:
            process.stderr.close()
        for left in ranks_of(run):
            os.kill(left, signal.SIGKILL)


def finish(process: subprocess.Popen[str], seconds: float = 60) -> tuple[int, str]:
    """Waits for a supervisor; its exit code and what it said."""
    _, said = process.communicate(timeout=seconds)
    return process.returncode, said


def supervise(run: RunPaths, timing: Mapping[str, Any] = QUICK) -> tuple[int, str]:
    """Runs a supervisor to its end."""
    with attempt(run, timing) as process:
        return finish(process)


def ranks_of(run: RunPaths) -> list[int]:
    """The processes that belong to a run: its launcher and its ranks."""
    wanted = {"CLUSTERSEG_RUN_DIR": str(run.root)}
    return [process.pid for process in processes_with_environment(wanted)]


def end_of(run: RunPaths, number: int) -> dict[str, Any]:
    """end.json of an attempt."""
    return json.loads(run.attempt(number).end.read_bytes())  # type: ignore[no-any-return]


def wait_until(condition: Callable[[], object], what: str, seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"waited in vain until {what}"
        time.sleep(0.05)


def wrote_steps(run: RunPaths, number: int = 0, ranks: int = 2) -> bool:
    """Whether every rank of an attempt has done a step."""
    files = [run.attempt(number).events(rank) for rank in range(ranks)]
    return all(file.exists() and '"steps"' in file.read_text() for file in files)
