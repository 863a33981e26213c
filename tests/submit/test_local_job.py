"""A local job outlives its client, is started once, and is known from its first moment on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from clusterseg.cluster.local import LocalJob, LocalLives, job_process, start_job
from clusterseg.cluster.processes import host_name, send_signal
from clusterseg.errors import ClustersegError
from clusterseg.runs.files import commit_new
from clusterseg.runs.state import Life


def job(tmp_path: Path, script: str, **environ: str) -> LocalJob:
    path = {"PATH": os.environ["PATH"]}
    return LocalJob(("/bin/bash", "-c", script), tmp_path, path | environ, tmp_path / "output")


def recorder(tmp_path: Path) -> Callable[[str], None]:
    return lambda job_id: commit_new(tmp_path / "job_id", job_id.encode())


def wait_until_dead(job_id: str) -> None:
    for _ in range(400):
        if LocalLives().job(job_id) is Life.DEAD:
            return
        time.sleep(0.05)
    raise AssertionError(f"{job_id} did not end")


def test_the_id_names_the_very_process_that_runs_the_script(tmp_path: Path) -> None:
    script = "echo $$; read -r line < /proc/$$/stat; echo $line; sleep 0.2"
    job_id = start_job(job(tmp_path, script), recorder(tmp_path))
    assert (tmp_path / "job_id").read_text() == job_id
    assert LocalLives().job(job_id) is Life.ALIVE
    wait_until_dead(job_id)
    pid, stat = (tmp_path / "output").read_text().splitlines()
    start_ticks = stat.rpartition(")")[2].split()[19]
    assert job_id == f"local-{host_name()}-{pid}-{start_ticks}"


def test_it_has_no_terminal_no_input_and_nothing_inherited(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    script = "echo $(ps -o sid= -p $$) $$; readlink /proc/$$/fd/*; pwd; cat; echo error >&2"
    job_id = start_job(job(tmp_path, script), recorder(tmp_path))
    wait_until_dead(job_id)
    os.close(writing)
    assert os.read(reading, 1) == b""  # nobody else holds the other end
    os.close(reading)
    lines = (tmp_path / "output").read_text().splitlines()
    session, pid = lines[0].split()
    assert session == pid
    output = str(tmp_path / "output")
    assert lines[1:] == [os.devnull, output, output, str(tmp_path), "error"]
    assert (tmp_path / "output").stat().st_mode & 0o777 == 0o600


def test_ignored_and_blocked_signals_are_not_passed_on(tmp_path: Path) -> None:
    script = "grep -E 'SigIgn|SigBlk' /proc/self/status"
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        job_id = start_job(job(tmp_path, f"exec {script}"), recorder(tmp_path))
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        signal.signal(signal.SIGUSR1, before)
    wait_until_dead(job_id)
    # 32 and 33 are glibc's own: its posix_spawn, as make uses it, leaves them ignored, and no
    # program can change that.
    own = 1 << 31 | 1 << 32
    for line in (tmp_path / "output").read_text().splitlines():
        assert int(line.split()[1], 16) & ~own == 0, line


def test_output_is_added_to_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "output").write_text("before\n")
    wait_until_dead(start_job(job(tmp_path, "echo after"), recorder(tmp_path)))
    assert (tmp_path / "output").read_text() == "before\nafter\n"


def test_the_environment_is_the_given_one(tmp_path: Path) -> None:
    wait_until_dead(start_job(job(tmp_path, "echo $X; env | wc -l", X="a b"), recorder(tmp_path)))
    value, count = (tmp_path / "output").read_text().splitlines()
    assert value == "a b"
    assert int(count) <= 6  # bash adds PWD, SHLVL and _


def test_of_two_starts_one_runs(tmp_path: Path) -> None:
    script = "echo ran"
    job_id = start_job(job(tmp_path, script), recorder(tmp_path))
    with pytest.raises(ClustersegError, match="started by another process"):
        start_job(job(tmp_path, script), recorder(tmp_path))
    wait_until_dead(job_id)
    assert (tmp_path / "output").read_text() == "ran\n"
    assert (tmp_path / "job_id").read_text() == job_id


@pytest.mark.parametrize("what", ["program", "directory", "output", "record"])
def test_what_cannot_start_says_why(tmp_path: Path, what: str) -> None:
    wanted = job(tmp_path, "echo ran")
    record = recorder(tmp_path)
    if what == "program":
        wanted = LocalJob(("/no/such/program",), tmp_path, {}, tmp_path / "output")
    if what == "directory":
        wanted = LocalJob(wanted.argv, tmp_path / "nowhere", {}, tmp_path / "output")
    if what == "output":
        wanted = LocalJob(wanted.argv, tmp_path, {}, tmp_path / "nowhere" / "output")
    if what == "record":

        def record(job_id: str) -> None:
            raise OSError(28, "No space left on device")

    with pytest.raises(ClustersegError, match="could not be started") as caught:
        start_job(wanted, record)
    assert ("No space left" if what == "record" else "No such file") in caught.value.message
    assert caught.value.exit_code == 3
    assert not (tmp_path / "output").exists() or (tmp_path / "output").read_text() == ""


def test_it_is_nobodys_child_and_survives_its_client(tmp_path: Path) -> None:
    """The client is killed the moment it knows the id; its terminal goes away with it."""
    client = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from clusterseg.cluster.local import LocalJob, start_job\n"
        "from clusterseg.runs.files import commit_new\n"
        "folder = Path(sys.argv[1])\n"
        "argv = ('/bin/bash', '-c', 'sleep 0.5; echo alive')\n"
        "job = LocalJob(argv, folder, {}, folder / 'output')\n"
        "start_job(job, lambda job_id: commit_new(folder / 'job_id', job_id.encode()))\n"
        "os.killpg(0, signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", client, str(tmp_path)],
        start_new_session=True,
        env=dict(os.environ),
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    job_id = (tmp_path / "job_id").read_text()
    assert LocalLives().job(job_id) is Life.ALIVE
    wait_until_dead(job_id)
    assert (tmp_path / "output").read_text() == "alive\n"


def test_a_killed_job_is_dead(tmp_path: Path) -> None:
    job_id = start_job(job(tmp_path, "exec sleep 60"), recorder(tmp_path))
    process = job_process(job_id)
    assert process is not None
    assert send_signal(process, signal.SIGKILL)
    wait_until_dead(job_id)


@pytest.mark.parametrize(
    ("job_id", "life"),
    [
        ("12345", Life.UNKNOWN),  # another scheduler's
        ("local-", Life.UNKNOWN),
        ("local-another-host-1-1", Life.UNKNOWN),
        (f"local-{host_name()}-1-0", Life.DEAD),  # the pid lives, the process does not
        (f"local-{host_name()}-999999999-1", Life.DEAD),
    ],
)
def test_what_is_known_of_other_ids(job_id: str, life: Life) -> None:
    assert LocalLives().job(job_id) is life


def test_host_names_with_hyphens_are_no_trouble() -> None:
    process = job_process("local-login-1-77-88")
    assert process is not None
    assert (process.host, process.pid, process.start) == ("login-1", 77, 88)
