"""Processes of this host: identity, life, safe signals, detached starts."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from clusterseg.cluster import processes


def start(*argv: str, **environ: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(argv or ("sleep", "60"), env={**os.environ, **environ})


def wait_for(condition: object, what: str, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.02)


def test_this_process_lives_and_keeps_its_identity() -> None:
    me = processes.this_process()
    assert me == processes.process_id(os.getpid())
    assert processes.is_alive(me) is True
    assert processes.local_job_id(me) == f"local-{me.host}-{os.getpid()}-{me.start}"


@pytest.mark.parametrize(
    ("change", "alive"),
    [
        ({"start": 1}, False),  # the pid was used again
        ({"boot_id": "another"}, False),  # the host was started again
        ({"host": "elsewhere"}, None),
    ],
)
def test_life_of_others(change: dict[str, object], alive: bool | None) -> None:
    assert processes.is_alive(replace(processes.this_process(), **change)) is alive  # type: ignore[arg-type]


def test_a_zombie_is_dead() -> None:
    process = start("true")
    identity = None
    try:
        wait_for(lambda: processes.start_ticks(process.pid) is None, "the zombie")
        with pytest.raises(ProcessLookupError):
            identity = processes.process_id(process.pid)
    finally:
        process.wait()
    assert identity is None


def test_a_name_full_of_parentheses(tmp_path: Path) -> None:
    program = tmp_path / ") R 1 (x)"
    program.symlink_to("/bin/sleep")
    process = start(str(program), "60")
    try:
        ticks = processes.start_ticks(process.pid)
        assert ticks is not None
        assert abs(ticks - processes.this_process().start) < 100 * 3600 * 24
        assert processes.is_alive(processes.process_id(process.pid))
    finally:
        process.kill()
        process.wait()


def test_signals_reach_only_the_very_process() -> None:
    process = start()
    try:
        identity = processes.process_id(process.pid)
        stranger = replace(identity, start=identity.start - 1)
        assert processes.send_signal(stranger, signal.SIGKILL) is False
        assert process.poll() is None
        assert processes.send_signal(identity, signal.SIGKILL) is True
        assert process.wait(10) == -signal.SIGKILL
        assert processes.send_signal(identity, signal.SIGKILL) is False
    finally:
        process.kill()
        process.wait()


def test_processes_are_found_by_their_environment() -> None:
    mine = start(CLUSTERSEG_TEST="a", CLUSTERSEG_OTHER="b")
    other = start(CLUSTERSEG_TEST="aa", CLUSTERSEG_OTHER="b")
    try:
        wanted = {"CLUSTERSEG_TEST": "a", "CLUSTERSEG_OTHER": "b"}
        wait_for(
            lambda: (
                processes.processes_with_environment(wanted) == [processes.process_id(mine.pid)]
            ),
            "the process with these variables",
        )
    finally:
        for process in (mine, other):
            process.kill()
            process.wait()


def test_states_of_processes() -> None:
    process = start()
    try:
        identity = processes.process_id(process.pid)
        wait_for(lambda: processes.process_state(process.pid) == "S", "the process to sleep")
        processes.send_signal(identity, signal.SIGSTOP)
        wait_for(lambda: processes.process_state(process.pid) == "T", "the process to stop")
    finally:
        process.kill()
        process.wait()
    assert processes.process_state(process.pid) == "gone"


def test_kills_for_want_of_memory_are_counted_where_they_can_be_read() -> None:
    count = processes.oom_kills()
    assert count is None or count >= 0
