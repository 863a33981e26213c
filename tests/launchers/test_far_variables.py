"""Variables of a plan on another host, started in the environment that the supervisor makes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from clusterseg.plan.model import Host, LauncherPair, Plan
from clusterseg.plan.planner import fill
from clusterseg.runs.paths import RunPaths
from clusterseg.supervise.launch import launch_argv, rank_environment
from tests.launchers.hosts import Hosts
from tests.plan.plans import job, plan, shipped

# name of the MPI -> its dialect, its launcher, its library
MPIS = {
    "openmpi4": ("openmpi4", "mpirun", "libmpi.so.40"),
    "openmpi5": ("openmpi5", "mpirun", "libmpi.so.40"),
    "mpich": ("mpich", "mpiexec", "libmpi.so.12"),
    "mpich4": ("mpich", "mpiexec", "libmpi.so.12"),
    "intelmpi": ("intelmpi", "mpiexec", "libmpi.so.12"),
}
ODD = {
    "ODD_0": " a  b ",
    "ODD_1": 'two\nlines, it\'s "$(id)" `id` $HOME',
    "ODD_2": "é→\U0001f600",
    "ODD_3": "",
    "ODD_4": "\\ %h ; = * \x1b[31m",
    "HOME": "/not/a/home",
    "CLUSTER": "x" * 20_000,
}

# Stands for the wrapper of a rank: runs what it is given.
PASSES_ON = """#!/bin/sh
shift 3; exec "$@"
"""
LOOK = """
import json, os, sys
rank = os.environ.get("OMPI_COMM_WORLD_RANK") or os.environ["PMI_RANK"]
with open(os.path.join(sys.argv[1], rank + ".json"), "w") as file:
    json.dump({"host": os.uname().nodename, "environment": dict(os.environ)}, file)
"""


@pytest.fixture(params=sorted(MPIS))
def mpi(request: pytest.FixtureRequest, mpi_prefix: Callable[[str], Path]) -> LauncherPair:
    dialect, program, library = MPIS[request.param]
    prefix = mpi_prefix(request.param)
    return LauncherPair(
        name=dialect,
        version="",
        program=str(prefix / "bin" / program),
        libmpi=str(prefix / "lib" / library),
    )


def planned(mpi: LauncherPair, there: Hosts, folder: Path) -> Plan:
    passes_on = folder / "clusterseg"
    passes_on.write_text(PASSES_ON)
    passes_on.chmod(0o700)
    words = [sys.executable, "-c", LOOK, str(folder)]
    made = plan(
        job(
            f"command: {json.dumps(words)}\n"
            f"launcher_args: {json.dumps(there.launcher_args(mpi.name))}\n"
            "resources: {hosts: {n1: 1, n2: 1}, cpus_per_rank: 1}\n"
            "placement: {bind_to: none}\n"
            f"environment: {{variables: {json.dumps(ODD, ensure_ascii=False)}}}\n"
        ),
        dialect=shipped(mpi.name),
        pair=mpi,
        hosts=[Host(name="login1", cores=2, here=True)],
        program=(str(passes_on),),
        as_root=os.geteuid() == 0,
        directory=str(folder),
    )
    return fill(made, run_dir=str(folder / "run"))


def as_the_supervisor(made: Plan, run: RunPaths) -> dict[str, str]:
    """What it starts the launcher with, itself started by the batch script."""
    script = {**os.environ, "NOT_NAMED": "secret", **made.environment}
    return rank_environment(script, made, run, 0)


def start(made: Plan, run: RunPaths, environ: Mapping[str, str]) -> list[dict[str, Any]]:
    """What each rank saw."""
    own = run.attempt(0)
    own.folder.mkdir(parents=True, exist_ok=True)
    assert made.hostfile is not None
    own.hostfile.write_text(made.hostfile)
    done = subprocess.run(
        launch_argv(made.argv, made, run, 0),
        env=dict(environ),
        cwd=made.directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    files = sorted(run.root.parent.glob("[0-9].json"))
    return [json.loads(file.read_text()) for file in files]


def test_every_variable_of_a_plan_arrives_on_other_hosts(mpi, hosts, tmp_path):
    made = planned(mpi, hosts(2), tmp_path)
    run = RunPaths(tmp_path / "run")
    environ = as_the_supervisor(made, run)
    seen = start(made, run, environ)
    assert [rank["host"] for rank in seen] == ["n1", "n2"]
    for rank in seen:
        for name in (*made.environment, "CLUSTERSEG_RUN_DIR", "CLUSTERSEG_STOP_FILE"):
            assert rank["environment"].get(name) == environ[name], name
        assert "NOT_NAMED" not in rank["environment"], "what is not named stays here"


def test_mpich_loses_the_last_variable_that_it_was_started_with(mpi, hosts, tmp_path):
    """Why the supervisor puts one there that nobody misses."""
    made = planned(mpi, hosts(2), tmp_path)
    run = RunPaths(tmp_path / "run")
    environ = as_the_supervisor(made, run)
    value = environ.pop("ODD_0")
    seen = start(made, run, {**environ, "ODD_0": value})
    arrived = {rank["environment"].get("ODD_0") for rank in seen}
    assert arrived == ({None} if mpi.name == "mpich" else {value})
