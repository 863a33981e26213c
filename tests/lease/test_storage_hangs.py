"""Storage that hangs, or fails, under a supervisor: no ranks without a lease.

Its own thread waits inside of the kernel then, and the tests look past that mount.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from clusterseg.cluster.processes import process_state
from clusterseg.runs import files
from clusterseg.runs.heartbeat import read_heartbeat
from clusterseg.runs.paths import RunPaths
from tests.lease.mounts import Storage, frozen, stopped_daemon
from tests.supervise.runs import QUICK, attempt, end_of, finish, make_run, ranks_of, wait_until

pytestmark = pytest.mark.slow
MakesStorage = Callable[[Path], AbstractContextManager[Storage]]
HALF = 4.0  # seconds
TERMINATE = 2.0
TIMING: dict[str, Any] = {
    **QUICK,
    "terminate": TERMINATE,
    "patience": {"interval": 0.5, "grace": 2 * HALF, "look": 0.1},
}
RUNS_ON = ("--quiet", "--steps", "10000")


def past(mount: Storage, run: RunPaths) -> RunPaths:
    """The run as it is on the disk."""
    return RunPaths(mount.real / run.root.relative_to(mount.point))


def beats(run: RunPaths) -> int:
    beat = read_heartbeat(run.attempt(0).heartbeat)
    return beat.count if beat else 0


def wait_for_ranks(run: RunPaths, real: RunPaths) -> None:
    """Until both run the program, which touches no file: one that still opened its log would wait
    for the storage as well, where nobody can end it."""
    wait_until(lambda: len(list(filter(runs_program, ranks_of(run)))) == 2, "both ranks run")
    known = beats(real)
    wait_until(lambda: beats(real) >= known + 2, "it beats while they run")


def runs_program(pid: int) -> bool:
    with suppress(OSError):
        argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return len(argv) > 1 and argv[1].endswith(b"rank_program.py")
    return False


@contextmanager
def answering(mount: Storage) -> Iterator[None]:
    """If the test fails, its processes can be ended: none waits for the storage any longer."""
    try:
        yield
    except BaseException:
        with suppress(OSError, subprocess.CalledProcessError):
            mount.answer()
        raise


def children(process: subprocess.Popen[str]) -> list[int]:
    file = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(pid) for pid in file.read_text().split()]


def attempts(run: RunPaths) -> list[str]:
    return sorted(path.name for path in run.attempts.iterdir())


STORAGES = pytest.mark.parametrize("storage", [stopped_daemon, frozen])


@STORAGES
def test_the_ranks_end_while_their_supervisor_waits_for_storage_that_hangs(
    storage: MakesStorage, tmp_path: Path
) -> None:
    with storage(tmp_path) as mount:
        run = make_run(mount.point, *RUNS_ON, restart={"crash": 0})
        real = past(mount, run)
        with attempt(run, TIMING) as process, answering(mount):
            wait_for_ranks(run, real)
            helpers = children(process)
            assert len(helpers) == 2, "its launcher and its fence"
            begun = time.monotonic()
            mount.hang()
            wait_until(
                lambda: not ranks_of(run), "the ranks are dead", seconds=HALF + TERMINATE + 4
            )
            assert time.monotonic() - begun > HALF - 1
            time.sleep(1)
            assert process.poll() is None, "the supervisor waits for its storage"
            assert not real.attempt(0).end.exists()
            mount.answer()
            code, said = finish(process)
        assert code == 1, said
        assert said.count("no heartbeat could be written") == 1
        end = end_of(real, 0)
        assert (end["cause"], end["will_restart"]) == ("crash", False)
        assert "heartbeat could not be written" in end["error"]
        assert "the storage did not answer" in end["error"]
        assert [pid for pid in helpers if process_state(pid) != "gone"] == []


@STORAGES
def test_a_short_moment_changes_nothing(storage: MakesStorage, tmp_path: Path) -> None:
    with storage(tmp_path) as mount:
        run = make_run(mount.point, "--quiet", "--steps", "160")
        real = past(mount, run)
        with attempt(run, TIMING) as process, answering(mount):
            wait_for_ranks(run, real)
            ranks = ranks_of(run)
            mount.hang()
            time.sleep(HALF / 2)
            known = beats(real)
            mount.answer()
            wait_until(lambda: beats(real) > known, "it beats again")
            time.sleep(HALF / 2)
            assert ranks_of(run) == ranks
            code, said = finish(process)
        assert code == 0, said
        assert "heartbeat" not in said
        assert (attempts(real), end_of(real, 0)["cause"]) == (["000"], "done")


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_the_ranks_end_when_the_heartbeat_cannot_be_written(tmp_path: Path) -> None:
    run = make_run(tmp_path, *RUNS_ON, restart={"crash": 0})
    heartbeat = run.attempt(0).heartbeat
    strace = ["strace", "-D", "-qq", "-o", os.devnull, "-P", str(heartbeat)]
    broken = ["-e", "trace=fsync", "-e", "inject=fsync:error=EIO:when=6+"]
    with attempt(run, TIMING, under=[*strace, *broken]) as process:
        wait_until(lambda: len(ranks_of(run)) >= 3, "mpirun and both ranks run")
        code, said = finish(process)
    assert code == 1, said
    assert "can't be written" in said
    end = end_of(run, 0)
    assert (end["cause"], end["will_restart"]) == ("crash", False)
    assert "heartbeat could not be written" in end["error"]
    assert "Input/output error" in end["error"]


def test_a_few_beats_that_fail_change_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path, "--quiet", "--steps", "120")
    moved = run.attempt(0).folder / "moved"
    with attempt(run, TIMING) as process:
        wait_for_ranks(run, run)
        heartbeat = run.attempt(0).heartbeat
        heartbeat.rename(moved)
        heartbeat.symlink_to(moved)  # which it does not follow
        time.sleep(HALF / 2)
        moved.rename(heartbeat)
        code, said = finish(process)
    assert code == 0, said
    assert "can't be written" in said
    assert end_of(run, 0)["cause"] == "done"


@pytest.mark.parametrize("followed", [False, True])
def test_a_stopped_supervisor_has_no_ranks_and_wakes_to_the_truth(
    followed: bool, tmp_path: Path
) -> None:
    run = make_run(tmp_path, *RUNS_ON, restart={"crash": 0})
    with attempt(run, TIMING) as process:
        wait_for_ranks(run, run)
        process.send_signal(signal.SIGSTOP)
        wait_until(lambda: not ranks_of(run), "the ranks are dead", seconds=HALF + TERMINATE + 4)
        if followed:
            files.make_private_dir(run.attempt(1).folder)
            files.commit_new(run.attempt(1).claim, b"{}")
        process.send_signal(signal.SIGCONT)
        code, said = finish(process)
    assert (code, run.attempt(0).end.exists()) == ((0, False) if followed else (1, True)), said
    if followed:  # it looked before it asked anybody about an end that is not its to name
        assert "claimed by another process: ending the ranks" in said
    else:
        assert end_of(run, 0)["cause"] == "crash"


def test_a_machine_that_slept_goes_on(tmp_path: Path) -> None:
    """All of its processes slept: nobody took over, and the first beat says so."""
    run = make_run(tmp_path, "--quiet", "--steps", "200")
    with attempt(run, TIMING) as process:
        wait_for_ranks(run, run)
        asleep = [process.pid, *children(process), *ranks_of(run)]
        for pid in asleep:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(HALF + 2)
        for pid in asleep:
            os.kill(pid, signal.SIGCONT)
        code, said = finish(process)
    assert code == 0, said
    assert end_of(run, 0)["cause"] == "done"
