"""The guardian, as a real process: passes on, starts anew, gives up, outlives nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clusterseg.cluster.processes import process_state
from tests.supervise.runs import wait_until

# The child notes its pid, then waits for signals as the supervisor does.
SCRIPT = """
import os, sys, time
from pathlib import Path
from clusterseg.supervise import guardian
from clusterseg.supervise.signals import Wakeups
guardian._BACK_OFF = 0.01
guardian._SLURMS_KILL = 2.0
folder, ready_after = Path(sys.argv[1]), float(sys.argv[2])

def supervise():
    with (folder / "born").open("a") as file:
        file.write(f"{os.getpid()}\\n")
    time.sleep(ready_after)
    with Wakeups() as wakeups:
        (folder / "ready").touch()
        while True:
            wakeups.wait(10)
            for number in wakeups.take():
                with (folder / "heard").open("a") as file:
                    file.write(f"{number}\\n")
                return 75

sys.exit(guardian.guard(supervise))
"""


@contextmanager
def guarded(
    folder: Path, ready_after: float = 0.0, job: str = "1"
) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder), str(ready_after)],
        env={**os.environ, "SLURM_JOB_ID": job},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
        wait_until(lambda: not alive(born(folder)), "no supervisor is left")


def lines(file: Path) -> list[int]:
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def born(folder: Path) -> list[int]:
    return lines(folder / "born")


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if process_state(pid) not in ("gone", "Z", "X")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT])
def test_signals_and_the_exit_code_pass_through(number: int, tmp_path: Path) -> None:
    with guarded(tmp_path) as process:
        wait_until((tmp_path / "ready").exists, "it is ready")
        assert born(tmp_path) != [process.pid]
        process.send_signal(number)
        assert process.wait(10) == 75
    assert lines(tmp_path / "heard") == [number]


def test_a_signal_to_a_supervisor_that_is_still_loading_is_not_lost(tmp_path: Path) -> None:
    with guarded(tmp_path, ready_after=1.0) as process:
        wait_until(lambda: born(tmp_path), "it is born")
        process.send_signal(signal.SIGUSR1)
        os.kill(born(tmp_path)[0], signal.SIGTERM)  # as Slurm does, to every process of the step
        assert process.wait(10) == 75
    assert len(born(tmp_path)) == 1
    assert lines(tmp_path / "heard") in ([signal.SIGUSR1], [signal.SIGTERM])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_supervisor_is_started_anew(number: int, tmp_path: Path) -> None:
    with guarded(tmp_path) as process:
        wait_until((tmp_path / "ready").exists, "it is ready")
        (tmp_path / "ready").unlink()
        os.kill(born(tmp_path)[0], number)
        wait_until((tmp_path / "ready").exists, "the second one is ready")
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 75
        assert process.stderr is not None
        assert "starting it anew" in process.stderr.read()
    assert len(born(tmp_path)) == 2


def test_the_second_one_is_told_what_the_first_one_was(tmp_path: Path) -> None:
    """Killed while it stopped: no second notice would come."""
    with guarded(tmp_path, ready_after=1.0) as process:
        wait_until(lambda: born(tmp_path), "it is born")
        process.send_signal(signal.SIGUSR1)
        os.kill(born(tmp_path)[0], signal.SIGKILL)
        assert process.wait(10) == 75
    assert len(born(tmp_path)) == 2
    assert lines(tmp_path / "heard") == [signal.SIGUSR1]


def test_none_is_started_while_slurm_kills_the_job(tmp_path: Path) -> None:
    """TERM, later KILL for every process of the batch step; the supervisor's comes first."""
    with guarded(tmp_path, ready_after=1.5) as process:
        wait_until(lambda: born(tmp_path), "it is born")
        (child,) = born(tmp_path)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)  # for it to be passed on
        os.kill(child, signal.SIGKILL)
        time.sleep(1.0)
        assert born(tmp_path) == [child]
        # It was not Slurm's after all.
        assert process.wait(10) == 75
    assert len(born(tmp_path)) == 2
    assert lines(tmp_path / "heard") == [signal.SIGTERM]


def test_one_that_is_always_killed_is_given_up(tmp_path: Path) -> None:
    with guarded(tmp_path, ready_after=100.0) as process:
        for count in range(1, 6):
            wait_until(lambda count=count: len(born(tmp_path)) == count, f"number {count}")
            os.kill(born(tmp_path)[-1], signal.SIGKILL)
        assert process.wait(10) == 1
        assert process.stderr is not None
        assert "giving up" in process.stderr.read()


def test_the_supervisor_stops_when_its_guardian_is_killed(tmp_path: Path) -> None:
    with guarded(tmp_path) as process:
        wait_until((tmp_path / "ready").exists, "it is ready")
        process.kill()
        process.wait()
        wait_until(lambda: not alive(born(tmp_path)), "the supervisor has ended")
    assert lines(tmp_path / "heard") == [signal.SIGTERM]


def test_outside_of_a_job_there_is_none(tmp_path: Path) -> None:
    with guarded(tmp_path, job="") as process:
        wait_until((tmp_path / "ready").exists, "it is ready")
        assert born(tmp_path) == [process.pid]
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 75
