"""Ranks of a job that is submitted with fewer cores than its cpuset has: a real Open MPI 5."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from clusterseg.cluster.mpi import find_pairs
from clusterseg.cluster.topology import own_cpuset
from clusterseg.submit.launchers import read_definitions

pytestmark = pytest.mark.slow
PROGRAM = "import json, os; json.dump(sorted(os.sched_getaffinity(0)), open('seen.json', 'w'))"


def test_a_rank_is_bound_to_a_core_that_its_job_may_use(tmp_path: Path) -> None:
    """Without being told, mpirun binds the first rank to the first core of the machine."""
    if not any(
        pair.name == "openmpi5"
        for pair in find_pairs(read_definitions({"CLUSTERSEG_CONFIG": "/nowhere"}), os.environ)
    ):
        pytest.skip("no Open MPI 5 here")
    cpus = sorted(own_cpuset())
    if len(cpus) < 2:
        pytest.skip("one CPU alone can't be made fewer")
    (tmp_path / "job.yaml").write_text(
        f"name: narrow\ncommand: {json.dumps([sys.executable, '-c', PROGRAM])}\n"
        "launcher: openmpi5\nscheduler: local\nresources: {ranks: 1}\n"
        "placement: {verify: fail}\n"
    )
    last = cpus[-1]
    command = [str(Path(sys.executable).with_name("clusterseg")), "submit", "job.yaml", "--wait"]
    done = subprocess.run(
        ["taskset", "-c", str(last), *command],
        cwd=tmp_path,
        env={**os.environ, "CLUSTERSEG_RUNS": str(tmp_path / "runs")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "seen.json").read_text()) == [last]
