"""A job that is submitted with fewer cores than its cpuset has: ranks stay on these, everywhere."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from clusterseg.cluster.topology import own_cpuset
from tests.launchers.jobs import Job, Mpi

HEEDED = ("openmpi5", "intelmpi")


def narrowed(mpi: Mpi) -> tuple[Mpi, int]:
    """The MPI, started with the last CPU alone, and that CPU."""
    cpus = sorted(own_cpuset())
    if len(cpus) < 2:
        pytest.skip("one CPU alone can't be made fewer")
    return replace(mpi, under=[*mpi.under, "taskset", "-c", str(cpus[-1])]), cpus[-1]


def test_a_rank_is_bound_within_the_affinity_or_refused(mpi: Mpi, tmp_path: Path) -> None:
    under, last = narrowed(mpi)
    job = Job(under, tmp_path, ranks=1)
    if mpi.launcher in HEEDED:
        assert [rank["cpus"] for rank in job.done()] == [[last]]
        assert "the ranks are where they were planned to be" in job.account()
        return
    checked = subprocess.run(
        [*under.under, sys.executable, "-m", "clusterseg.cli.main", "check", str(job.write())],
        env={**os.environ, "PATH": f"{mpi.folder}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert checked.returncode == 2
    what = f"the launcher {mpi.launcher} would bind ranks to cores that this process may not use"
    assert what in checked.stderr
    (can,) = [line for line in checked.stderr.splitlines() if "launchers that can: " in line]
    assert {*HEEDED} <= {*can.partition("launchers that can: ")[2].split(", ")}


def test_ranks_that_are_not_bound_inherit_the_affinity(mpi: Mpi, tmp_path: Path) -> None:
    under, last = narrowed(mpi)
    keys = {"placement": {"bind_to": "none"}}
    assert [rank["cpus"] for rank in Job(under, tmp_path, ranks=1, keys=keys).done()] == [[last]]
