"""However ranks end, the supervisor says it as it was, on every launcher; nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.launchers.hosts import Hosts
from tests.launchers.jobs import Job, Mpi
from tests.supervise.runs import wait_until

# Debian's Open MPI ends as the other 4 does.
DIFFERENT = pytest.mark.parametrize(
    "mpi", ["openmpi4", "openmpi5", "mpich", "intelmpi"], indirect=True
)


@DIFFERENT
def test_a_terminated_supervisor_stops_its_ranks_in_order(
    mpi: Mpi, hosts: Callable[..., Hosts], tmp_path: Path
) -> None:
    """They are asked by the stop file, on other hosts too, end with 75, and the run can go on."""
    job = there(mpi, hosts, tmp_path, "stop")
    with job.started() as process:
        all_met(job)
        os.kill(job.claim()["pid"], signal.SIGTERM)
        code, said = finish(process)
    assert code == 75, f"{said}\n{job.account()}"
    assert job.end()["failed_rank"] is None
    assert [rank["heard"] for rank in job.seen()] == [[], []]  # in time, so no signal was needed


@DIFFERENT
def test_ranks_that_are_to_end_now_hear_it_from_the_launcher(mpi: Mpi, tmp_path: Path) -> None:
    job = Job(mpi, tmp_path, "listen")
    with job.started() as process:
        all_met(job)
        command = [
            sys.executable,
            "-m",
            "clusterseg.cli.main",
            "cancel",
            "--now",
            str(job.run.root),
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        code, said = finish(process)
    assert code == 1, f"{said}\n{job.account()}"
    assert job.end()["cause"] == "cancelled"
    assert {name for rank in job.seen() for name in rank["heard"]} == {"SIGTERM"}


@DIFFERENT
def test_ranks_that_all_stop_by_themselves_can_go_on(
    mpi: Mpi, hosts: Callable[..., Hosts], tmp_path: Path
) -> None:
    """On other hosts: Intel's mpiexec makes their 75 a 255, on this one it does not."""
    job = there(mpi, hosts, tmp_path, "return:75")
    code, said = job.ended()
    assert code == 75, f"{said}\n{job.account()}"
    assert job.end()["failed_rank"] is None


@DIFFERENT
@pytest.mark.parametrize("act", ["exit:1:3", "kill:1", "abort:1:7"])
def test_a_rank_that_ends_badly_ends_all(mpi: Mpi, act: str, tmp_path: Path) -> None:
    job = Job(mpi, tmp_path, act)
    code, said = job.ended()
    assert code == 1, f"{said}\n{job.account()}"
    assert_rank_1_is_blamed(job, act)


@DIFFERENT
@pytest.mark.parametrize("act", ["exit:1:3", "kill:1"])
def test_so_does_one_on_another_host(
    mpi: Mpi, act: str, hosts: Callable[..., Hosts], tmp_path: Path
) -> None:
    """MPICH's mpiexec goes on after an exit, even inside of MPI: the supervisor ends it."""
    job = there(mpi, hosts, tmp_path, act)
    code, said = job.ended()
    assert code == 1, f"{said}\n{job.account()}"
    assert_rank_1_is_blamed(job, act)


@DIFFERENT
def test_a_killed_launcher_leaves_no_rank(
    mpi: Mpi, hosts: Callable[..., Hosts], tmp_path: Path
) -> None:
    """Open MPI's ranks outlive it; `Job.started` holds that they are gone in the end."""
    job = there(mpi, hosts, tmp_path, "sleep")
    with job.started() as process:
        all_met(job)
        os.kill(launcher_of(job), signal.SIGKILL)
        code, said = finish(process)
    assert code == 1, f"{said}\n{job.account()}"
    assert (job.end()["cause"], job.end()["signal"]) == ("crash", 9)


def assert_rank_1_is_blamed(job: Job, act: str) -> None:
    """Or none, where the launcher does not say which one: another would be wrong."""
    end = job.end()
    account = f"{end}\n{job.account()}"
    assert end["cause"] == "crash", account
    assert end["failed_rank"] in (1, None), account
    if end["failed_rank"] == 1:
        assert end["failed_host"] == job.seen()[1]["host"], account
        if act.startswith("kill"):  # Hydra does not say it, then the rank's wrapper does
            assert end["signal"] == 9 or "ended with signal 9" in end["error"], account
        else:
            assert end["signal"] is None, account


def there(mpi: Mpi, hosts: Callable[..., Hosts], folder: Path, act: str) -> Job:
    """A rank on n1, another on n2."""
    return Job(mpi, folder, act, hosts=hosts(2), counts=(1, 1))


def all_met(job: Job) -> None:
    """Waits until the ranks are past their barrier."""
    wait_until(lambda: [rank.get("met") for rank in job.seen()] == [True, True], "all have met")


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    said, _ = process.communicate(timeout=60)
    return process.returncode, said


def launcher_of(job: Job) -> int:
    """The process that the supervisor started: all ranks and daemons are below it."""
    pid = job.claim()["pid"]
    program = job.claim()["argv"][0]
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    (found,) = (
        int(child)
        for child in children
        if Path(f"/proc/{child}/cmdline").read_text().split("\0")[0].endswith(("/prterun", program))
    )
    return found
