"""A rank that has ended before anybody could see it run: its launcher must not wait for it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from clusterseg.submit.launchers import read_definitions
from tests.launchers.hosts import Hosts
from tests.launchers.jobs import Mpi

THREADS = "sed -n 's/Threads:.//p' /proc/$PPID/status"  # of what has started the rank


@pytest.mark.parametrize("mpi", ["openmpi5"], indirect=True)
def test_daemons_start_ranks_in_the_thread_that_hears_of_their_end(
    mpi: Mpi, hosts: Callable[..., Hosts]
) -> None:
    """Open MPI 5's have 16 more for that: of 263 mpiruns whose ranks end at once 23 never ended,
    beside many other processes, and of 1,424 without them none. That moment can not be made.
    """
    two = hosts(2)
    dialect = read_definitions(os.environ)[mpi.launcher]
    command = [
        *(str(Path(mpi.folder) / "mpirun"), *two.launcher_args(mpi.launcher)),
        *(dialect.say("root") if os.geteuid() == 0 else ()),
        *("--host", "n1:2,n2:1", "-np", "3", "sh", "-c", THREADS),
    ]
    login = {"PATH": "/usr/bin:/bin", "HOME": str(Path.home())}
    environ = {**login, "OPAL_PREFIX": str(Path(mpi.folder).parent), **dialect.set("ranks")}
    ended = subprocess.run(
        command, env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert [int(threads) <= 4 for threads in ended.stdout.split()] == [True] * 3, ended.stdout
