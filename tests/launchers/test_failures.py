"""What the supervisor says of ranks that fail under the real launchers."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clusterseg.runs.paths import RunPaths
from tests.launchers.hosts import Hosts
from tests.supervise.runs import QUICK, attempt, end_of, finish, make_run

pytestmark = pytest.mark.slow

HERE = os.uname().nodename.split(".")[0]
ABORTING = Path(__file__).parents[1] / "supervise" / "mpi_program.py"
HYDRAS = ("mpich", "mpich4", "intelmpi")


@pytest.fixture
def run_with(
    tmp_path: Path, mpi_prefix: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., RunPaths]:
    """run_with("mpich", "--steps", "5", …): a run of three ranks under that MPI; `hosts`: of two
    on n1 and one on n2."""

    def make(name: str, *program: str, hosts: Hosts | None = None, **keys: Any) -> RunPaths:
        folder = mpi_prefix(name) / "bin"
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        launcher = "mpich" if name == "mpich4" else name
        keys |= {"launcher": launcher, "restart": {"crash": 0}}
        if hosts is None:
            return make_run(tmp_path, *program, ranks=3, placement={"oversubscribe": True}, **keys)
        keys["launcher_args"] = hosts.launcher_args(launcher)
        keys["placement"] = {"bind_to": "none"}
        keys["resources"] = {
            "nodes": 2, "ranks_per_node": None, "cpus_per_rank": 1, "hosts": {"n1": 2, "n2": 1},
        }  # fmt: skip
        return make_run(tmp_path, *program, **keys)

    return make


def ended(run: RunPaths) -> dict[str, Any]:
    """How it ended, which is no success."""
    with attempt(run, {**QUICK, "cleanup": 2.0}) as process:
        code, said = finish(process)
    assert code == 1, said
    return end_of(run, 0)


def of_rank(end: dict[str, Any]) -> tuple[Any, ...]:
    return end["cause"], end["failed_rank"], end["failed_host"], end["signal"]


@pytest.mark.parametrize("name", ["mpich", "intelmpi"])
def test_a_rank_alone_on_its_host_that_was_killed(
    name: str, run_with: Callable[..., RunPaths], hosts: Callable[..., Hosts]
) -> None:
    run = run_with(name, "--steps", "100", "--fail", "kill:2:3", hosts=hosts(2))
    assert of_rank(ended(run)) == ("crash", 2, "n2", 9)


@pytest.mark.parametrize("name", HYDRAS)
def test_of_ranks_that_their_launcher_kills_as_well_none_is_blamed(
    name: str, run_with: Callable[..., RunPaths]
) -> None:
    """The kernel kills one for want of memory, and Hydra the others."""
    run = run_with(name)
    of_mpi(run, "kill:2")
    end = ended(run)
    assert end["failed_rank"] in (2, None)
    assert (end["failed_host"], end["signal"]) == (HERE, 9)
    assert "killed by signal 9 (SIGKILL)" in end["error"].split("\n")[0]


@pytest.mark.parametrize("name", HYDRAS)
@pytest.mark.parametrize("rank", [0, 2])
def test_a_rank_that_aborts_is_named(
    name: str, rank: int, run_with: Callable[..., RunPaths]
) -> None:
    run = run_with(name)
    of_mpi(run, f"abort:{rank}")
    end = ended(run)
    assert of_rank(end) == ("crash", rank, HERE, None), end["error"]
    assert (end["exit_code"], "exited with code 7" in end["error"]) == (7, True)


@pytest.mark.parametrize("name", [*HYDRAS, "openmpi4"])
def test_a_rank_that_says_that_it_failed_ends_the_others(
    name: str, run_with: Callable[..., RunPaths]
) -> None:
    """Hydra lets them run on: they are not inside of MPI."""
    run = run_with(name, "--steps", "1000", "--fail", "tell3:1:3")
    begun = time.monotonic()
    end = ended(run)
    assert time.monotonic() - begun < 30  # and not the 50 s of the steps
    assert of_rank(end) == ("crash", 1, HERE, None)
    assert "E: the moon" in end["error"]


def of_mpi(run: RunPaths, fault: str) -> None:
    """Has the ranks of `run` sum with each other until one of them ends."""
    plan = json.loads(run.submission(0).plan.read_bytes())
    plan["argv"] = [*plan["argv"][: plan["argv"].index("--") + 1], sys.executable, str(ABORTING)]
    plan["argv"].append(fault)
    run.submission(0).plan.write_bytes(json.dumps(plan).encode())
