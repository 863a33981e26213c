"""Stopping: asked first, ended surely, and never a process that is not the run's own."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clusterseg.cluster.local import claim_process
from clusterseg.cluster.look import look
from clusterseg.cluster.processes import ProcessId, process_id, processes_with_environment
from clusterseg.runs import store
from clusterseg.runs.attempts import last_attempt
from clusterseg.runs.control import read_stop
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Cause, State
from clusterseg.submit import cancellation
from clusterseg.submit.cancellation import (
    ask_to_stop,
    attempts_to_stop,
    end_processes,
    wait_until_stopped,
)
from clusterseg.submit.request import read_request
from clusterseg.submit.resumption import resume
from clusterseg.submit.submission import submit

# Polite programs stop when asked, with the exit code that says so; rude ones never do.
POLITE = """\
name: polite
command:
  - bash
  - -c
  - while sleep 0.1; do [ -s "$CLUSTERSEG_STOP_FILE" ] && exit 75; done
launcher: local
resources: {ranks: 1}
"""
RUDE = """\
name: rude
command: [bash, -c, "trap '' TERM USR1 INT; while :; do sleep 0.2; done"]
launcher: local
resources: {ranks: 1}
"""
SETTING_UP = """\
name: setup
command: [echo, hello]
launcher: local
resources: {ranks: 1}
environment: {setup: ["echo setting up", "sleep 60"]}
"""


def until(condition: Callable[[], object], what: str) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError(f"never: {what}")


def begin(tmp_path: Path, text: str) -> RunPaths:
    job = tmp_path / "job.yaml"
    job.write_text(text)
    plan = read_request(job, (), os.environ)
    return RunPaths(submit(plan, text, (), tmp_path / "runs", os.environ).run_dir)


def ranks_of(run: RunPaths) -> list[ProcessId]:
    return processes_with_environment({"CLUSTERSEG_RUN_DIR": str(run.root)})


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Callable[[str], RunPaths]]:
    """Starts a job and waits until its rank runs; ends what is left of it."""
    started: list[RunPaths] = []

    def start(text: str) -> RunPaths:
        run = begin(tmp_path, text)
        started.append(run)
        until(lambda: last_attempt(run) is not None and ranks_of(run), "a running rank")
        return run

    yield start
    for run in started:
        for process in ranks_of(run):
            os.kill(process.pid, signal.SIGKILL)


@pytest.mark.slow
def test_cancel_stops_resumably(running: Callable[[str], RunPaths], tmp_path: Path) -> None:
    run = running(POLITE)
    asked = look(run)
    assert asked.verdict.state is State.RUNNING
    ask_to_stop(asked, now=False)
    snapshot = wait_until_stopped(asked, 30, now=False)
    assert (snapshot.verdict.state, snapshot.verdict.exit_code) == (State.STOPPED, 75)
    assert not ranks_of(run)
    # ... and it goes on.
    text = run.submission(0).job_yaml.read_text()
    plan = read_request(tmp_path / "job.yaml", (), os.environ)
    resume(snapshot, plan, text, (), os.environ)
    until(lambda: look(run).verdict.state is State.RUNNING, "running again")
    ask_to_stop(look(run), now=False)
    wait_until_stopped(look(run), 30, now=False)
    last = last_attempt(run)
    assert last is not None
    assert last.number == 1


@pytest.mark.slow
def test_cancel_now_ends_what_would_not_stop(running: Callable[[str], RunPaths]) -> None:
    run = running(RUDE)
    asked = look(run)
    ask_to_stop(asked, now=True)
    snapshot = end_processes(asked, lambda text: None)
    assert (snapshot.verdict.state, snapshot.verdict.exit_code) == (State.CANCELLED, 1)
    assert snapshot.attempt is not None
    assert snapshot.attempt.end is not None
    assert snapshot.attempt.end.cause is Cause.CANCELLED
    assert not ranks_of(run)


@pytest.mark.slow
def test_cancel_now_ends_a_supervisor_that_is_stuck(
    running: Callable[[str], RunPaths], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancellation, "ORDERLY", 1.5)
    monkeypatch.setattr(cancellation, "AFTER_TERM", 1.5)
    run = running(RUDE)
    asked = look(run)
    assert asked.attempt is not None
    assert asked.attempt.claim is not None
    os.kill(asked.attempt.claim.pid, signal.SIGSTOP)
    said: list[str] = []
    ask_to_stop(asked, now=True)
    snapshot = end_processes(asked, said.append)
    assert (snapshot.verdict.state, snapshot.verdict.exit_code) == (State.CANCELLED, 1)
    assert len(said) == 1
    until(lambda: not ranks_of(run), "no rank left")


@pytest.mark.slow
def test_what_a_killed_supervisor_left_is_ended_by_cancel_now(
    running: Callable[[str], RunPaths],
) -> None:
    run = running(RUDE)
    attempt = last_attempt(run)
    assert attempt is not None
    assert attempt.claim is not None
    os.kill(claim_process(attempt.claim).pid, signal.SIGKILL)
    until(lambda: look(run).verdict.over, "over")
    asked = look(run)
    assert (asked.verdict.state, asked.verdict.cause) == (State.FAILED, Cause.UNKNOWN)
    ask_to_stop(asked, now=True)
    assert end_processes(asked, lambda text: None).verdict.state is State.CANCELLED
    until(lambda: not ranks_of(run), "no rank left")


@pytest.mark.parametrize(("now", "state"), [(False, State.STOPPED), (True, State.CANCELLED)])
def test_a_job_that_still_sets_up_is_ended_at_once(tmp_path: Path, now: bool, state: State) -> None:
    run = begin(tmp_path, SETTING_UP)
    output = run.submission(0).output
    until(lambda: output.exists() and "setting up" in output.read_text(), "set-up begun")
    asked = look(run)
    assert asked.verdict.state is State.QUEUED
    ask_to_stop(asked, now=now)
    snapshot = wait_until_stopped(asked, 10, now=now)
    assert snapshot.verdict.state is state
    assert last_attempt(run) is None


def test_a_run_that_was_never_started_can_be_cancelled(tmp_path: Path) -> None:
    run = begin(tmp_path, SETTING_UP)
    asked = look(run)
    ask_to_stop(asked, now=True)
    wait_until_stopped(asked, 10, now=True)
    run.submission(0).job_id.unlink()
    run.stop_file(0).unlink()
    never = look(run)
    assert never.verdict.not_started
    ask_to_stop(never, now=False)
    assert look(run).verdict.state is State.STOPPED


def test_the_request_is_private_and_says_why(tmp_path: Path) -> None:
    run = begin(tmp_path, SETTING_UP)
    asked = look(run)
    assert attempts_to_stop(asked) == [0]
    ask_to_stop(asked, now=True)
    wait_until_stopped(asked, 10, now=True)
    request = read_stop(run.stop_file(0))
    assert request is not None
    assert request.reason == "cancel_now"
    assert run.stop_file(0).stat().st_mode & 0o777 == 0o600
    assert store.find_runs(tmp_path / "runs") == [run]


def test_a_process_with_a_used_again_number_is_not_signalled() -> None:
    """The pid is alive, the process that is meant is not: whoever has it now is left alone."""
    stranger = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        real = process_id(stranger.pid)
        older = ProcessId(real.host, real.boot_id, real.pid, real.start - 1)
        other_boot = ProcessId(real.host, "another-boot", real.pid, real.start)
        for process in (older, other_boot):
            cancellation._signal_session(process, signal.SIGKILL)
        time.sleep(0.2)
        assert stranger.poll() is None
        cancellation._signal_session(real, signal.SIGKILL)
        assert stranger.wait(5) == -signal.SIGKILL
    finally:
        stranger.kill()
        stranger.wait()
