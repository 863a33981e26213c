"""`submit` and `resume` as a user meets them, with real jobs that do little."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from clusterseg.cluster.look import look
from clusterseg.cluster.processes import processes_with_environment
from clusterseg.plan.rank_table import rank_table
from clusterseg.runs import store
from clusterseg.runs.attempts import iter_attempts
from clusterseg.runs.eventlog import iter_events
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Cause, RankStart, State
from tests.cli.conftest import Done

Cli = Callable[..., Done]
CLUSTERSEG = str(Path(sys.executable).with_name("clusterseg"))


@pytest.fixture
def job(tmp_path: Path, runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes a job.yaml that runs a line of bash on one rank, without MPI."""
    monkeypatch.chdir(tmp_path)

    def write(line: str, *more: str) -> Path:
        path = tmp_path / "job.yaml"
        lines = [
            "name: tiny",
            f"command: [bash, -c, '{line}']",
            "launcher: local",
            "resources: {ranks: 1}",
            *more,
        ]
        path.write_text("\n".join(lines) + "\n")
        return path

    return write


def only_run(runs_dir: Path) -> RunPaths:
    (run,) = store.find_runs(runs_dir)
    return run


def until(condition: Callable[[], object], what: str) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError(f"never: {what}")


@pytest.mark.slow
def test_submit_returns_at_once_and_says_what_to_do_next(
    cli: Cli, job: Callable[..., Path], runs_dir: Path
) -> None:
    done = cli("submit", job("sleep 1; echo hello"))
    run = only_run(runs_dir)
    assert done.code == 0
    assert done.out == f"{run.run_id}\n"
    for command in ("status", "logs -f", "cancel"):
        assert f"clusterseg {command} {run.run_id}" in done.err
    assert look(run).verdict.state in (State.QUEUED, State.RUNNING)
    assert cli("wait", run.run_id).code == 0
    assert cli("logs", run.run_id).out == "hello\n"


@pytest.mark.slow
def test_submit_json_is_the_contract(cli: Cli, job: Callable[..., Path], runs_dir: Path) -> None:
    done = cli("submit", job("exit 0"), "--json")
    run = only_run(runs_dir)
    assert done.json == {
        "run": run.run_id,
        "run_dir": str(run.root),
        "job_id": store.read_job_id(run.submission(0)),
    }
    assert cli("wait", run.run_id).code == 0


@pytest.mark.slow
def test_submit_wait_ends_with_the_runs_code_and_names_the_failure(
    cli: Cli, job: Callable[..., Path], runs_dir: Path
) -> None:
    path = job("echo boom; exit 3", "restart: {crash: 0}")
    done = cli("submit", path, "--wait")
    assert done.code == 1
    assert "is failed (crash): rank 0" in done.err
    assert "| " in done.err
    assert "boom" in done.err


def test_a_bad_setup_line_is_reported_with_its_output(
    cli: Cli, job: Callable[..., Path], runs_dir: Path
) -> None:
    path = job("exit 0", 'environment: {setup: ["echo preparing", "no-such-command x"]}')
    done = cli("submit", path, "--wait")
    assert done.code == 1
    assert "before it started an attempt" in done.err
    assert "no-such-command: command not found" in done.err


@pytest.mark.slow
def test_follow_streams_the_output_over_a_restart_and_ends_with_the_code(
    cli: Cli, job: Callable[..., Path], runs_dir: Path
) -> None:
    path = job("echo attempt $CLUSTERSEG_ATTEMPT; exit $((1 - CLUSTERSEG_ATTEMPT))")
    done = cli("submit", path, "--follow")
    assert done.code == 0
    for expected in ("[0] attempt 0", "it is started again", "[0] attempt 1", "ended as done"):
        assert expected in done.out
    assert "\x1b" not in done.out
    causes = [attempt.end.cause for attempt in iter_attempts(only_run(runs_dir)) if attempt.end]
    assert causes == [Cause.CRASH, Cause.DONE]


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--follow", "--wait"])
def test_ctrl_c_leaves_the_job_running(
    job: Callable[..., Path], runs_dir: Path, option: str
) -> None:
    path = job("sleep 3; echo survived")
    client = subprocess.Popen(
        [CLUSTERSEG, "submit", str(path), option],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    until(lambda: store.find_runs(runs_dir), "a run")
    run = only_run(runs_dir)
    until(lambda: look(run).verdict.state is State.RUNNING, "running")
    os.killpg(client.pid, signal.SIGINT)  # as a terminal does it: the whole foreground group
    _, err = client.communicate(timeout=30)
    assert client.returncode == 130
    assert f"left {run.run_id}, which is running" in err
    assert f"clusterseg cancel {run.run_id}" in err
    until(lambda: look(run).verdict.over, "the end")
    assert look(run).verdict.state is State.DONE
    assert run.attempt(0).log(0).read_text() == "survived\n"


def test_what_cannot_be_planned_makes_no_run(
    cli: Cli, job: Callable[..., Path], runs_dir: Path
) -> None:
    assert cli("submit", job("exit 0", "nodse: 2")).code == 2
    assert cli("submit", "nowhere.yaml").code == 2
    assert "not a plain file" in cli("submit", "/dev/stdin").err
    assert cli("submit", job("exit 0"), "--set", "resources.ranks=x").code == 2
    assert not runs_dir.exists()


@pytest.mark.slow
def test_resume_goes_on_with_the_same_overrides_from_anywhere(
    cli: Cli,
    job: Callable[..., Path],
    runs_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = job("pwd; echo $A $B; exit 75", "environment: {variables: {A: a, B: b}}")
    assert cli("submit", path, "--set", "environment.variables.A=x", "--wait").code == 75
    run = only_run(runs_dir)
    monkeypatch.chdir("/")
    assert cli("resume", run.run_id, "--set", "environment.variables.B=y", "--wait").code == 75
    assert run.attempt(0).log(0).read_text() == f"{tmp_path}\nx b\n"
    assert run.attempt(1).log(0).read_text() == f"{tmp_path}\nx y\n"
    text = run.submission(1).job_yaml.read_text()
    assert text.count("# clusterseg submit --set") == 2
    assert text.endswith(path.read_text())


@pytest.mark.slow
def test_resume_refuses_what_is_alive_or_done(
    cli: Cli, job: Callable[..., Path], runs_dir: Path
) -> None:
    cli("submit", job("sleep 1"))
    run = only_run(runs_dir)
    alive = cli("resume", run.run_id)
    assert alive.code == 2
    assert f"clusterseg cancel {run.run_id}" in alive.err
    assert cli("wait", run.run_id).code == 0
    done = cli("resume", run.run_id, "--json")
    assert done.code == 2
    assert done.json["errors"][0]["code"] == "done"
    assert "--set train.epochs=N" in done.json["errors"][0]["help"]
    assert len(store.iter_submissions(run)) == 1


@pytest.mark.slow
def test_resume_finishes_a_submission_whose_client_died(
    cli: Cli, job: Callable[..., Path], runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, contextlib.suppress(RuntimeError):
        patch.setattr("clusterseg.submit.submission.start_job", _die)
        cli("submit", job("echo ran"))
    run = only_run(runs_dir)
    assert "never started" in cli("status", run.run_id).out
    assert cli("resume", run.run_id, "--set", "name=other").code == 2
    done = cli("resume", run.run_id, "--wait")
    assert done.code == 0
    assert len(store.iter_submissions(run)) == 1
    assert run.attempt(0).log(0).read_text() == "ran\n"


def _die(*_: object) -> str:
    raise RuntimeError("the client dies here")


@pytest.mark.slow
def test_a_killed_supervisor_is_told_and_resumed(
    cli: Cli, job: Callable[..., Path], runs_dir: Path
) -> None:
    path = job("[ $CLUSTERSEG_ATTEMPT = 0 ] && exec sleep 60; echo second")
    cli("submit", path)
    run = only_run(runs_dir)
    carried = {"CLUSTERSEG_RUN_DIR": str(run.root)}
    until(lambda: look(run).attempt and processes_with_environment(carried), "a running rank")
    attempt = look(run).attempt
    assert attempt is not None
    assert attempt.claim is not None
    os.kill(attempt.claim.pid, signal.SIGKILL)
    until(lambda: look(run).verdict.over, "the end")
    status = cli("status", run.run_id)
    assert "its supervisor was killed" in status.out
    assert f"clusterseg resume {run.run_id}" in status.err
    assert cli("resume", run.run_id, "--wait").code == 0
    assert run.attempt(1).log(0).read_text() == "second\n"
    assert not processes_with_environment(carried)


@pytest.mark.slow
def test_logs_follow_until_the_end(cli: Cli, job: Callable[..., Path], runs_dir: Path) -> None:
    cli("submit", job("for i in 1 2 3; do echo line $i; sleep 0.5; done; printf unfinished"))
    run = only_run(runs_dir)
    # Before there is a rank's log, the batch script's own is followed.
    until(lambda: run.attempt(0).log(0).exists(), "a rank's log")
    done = cli("logs", "-f", run.run_id)
    assert done.out.splitlines() == ["[0] line 1", "[0] line 2", "[0] line 3", "[0] unfinished"]
    assert look(run).verdict.state is State.DONE


@pytest.mark.slow
def test_plain_processes_are_ranks_as_any(
    cli: Cli, job: Callable[..., Path], runs_dir: Path
) -> None:
    """Two ranks without an MPI: one is killed, its end is told, and the job starts again."""
    path = job(
        "echo rank $CLUSTERSEG_RANK of $CLUSTERSEG_WORLD_SIZE; "
        "[ $CLUSTERSEG_ATTEMPT = 1 ] || exec sleep 60"
    )
    two = ("--set", "resources.ranks=2", "--set", "placement.oversubscribe=true")
    cli("submit", path, *two)
    run = only_run(runs_dir)
    started: list[RankStart] = []

    def both_started() -> bool:
        files = [run.attempt(0).events(rank) for rank in (0, 1)]
        if not all(file.exists() and run.attempt(0).log(0).exists() for file in files):
            return False
        events = [event for file in files for event in iter_events(file)]
        started[:] = [event for event in events if isinstance(event, RankStart)]
        return len(started) == 2

    until(both_started, "both ranks run")
    os.kill(started[1].pid, signal.SIGKILL)
    until(lambda: look(run).verdict.over, "the end")
    first, second = (attempt.end for attempt in iter_attempts(run))
    assert first is not None
    assert (first.cause, first.signal, first.failed_rank) == (Cause.CRASH, signal.SIGKILL, 1)
    assert first.will_restart
    assert second is not None
    assert second.cause is Cause.DONE
    for rank in (0, 1):
        assert run.attempt(1).log(rank).read_text() == f"rank {rank} of 2\n"
    if len(os.sched_getaffinity(0)) >= 2:
        assert not set(started[0].cpus) & set(started[1].cpus)
    assert not processes_with_environment({"CLUSTERSEG_RUN_DIR": str(run.root)})


@pytest.mark.slow
def test_ranks_of_this_host_share_out_its_accelerators(
    cli: Cli, job: Callable[..., Path], runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-8f6e1c2a")
    path = job("echo $CUDA_VISIBLE_DEVICES")
    asked = ("--set", "placement.oversubscribe=true", "--set", "resources.accelerator=cuda")
    assert cli("submit", path, "--set", "resources.ranks=2", *asked, "--wait").code == 0
    run = only_run(runs_dir)
    assert [run.attempt(0).log(rank).read_text() for rank in (0, 1)] == ["4\n", "GPU-8f6e1c2a\n"]
    three = cli("submit", path, "--set", "resources.ranks=3", *asked)
    assert three.code == 2
    assert "3 × 1 = 3 of kind cuda, but this host shows 2" in three.err
    only_run(runs_dir)  # nothing was submitted


@pytest.mark.slow
def test_ranks_of_ascend_find_a_table_of_their_attempt(
    cli: Cli, job: Callable[..., Path], runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "0,1")
    path = job(
        "echo $DEVICE_ID $RANK_ID of $RANK_SIZE; cat $RANK_TABLE_FILE",
        "placement: {oversubscribe: true}",
    )
    addresses = "resources.device_addresses={localhost: [10.0.0.1, 10.0.0.2]}"
    npu = ("--set", "resources.ranks=2", "--set", "resources.accelerator=npu", "--set", addresses)
    assert cli("submit", path, *npu, "--wait").code == 0
    run = only_run(runs_dir)
    table = rank_table({"n1": 2}, {"n1": ["10.0.0.1", "10.0.0.2"]})
    for rank in (0, 1):
        assert run.attempt(0).log(rank).read_text() == f"{rank} {rank} of 2\n{table}"
    assert run.attempt(0).rank_table.stat().st_mode & 0o777 == 0o600
    wrong = ("--set", "resources.device_addresses={localhost: [10.0.0.1]}")
    few = cli("submit", path, *npu, *wrong)
    assert few.code == 2
    assert "has 2 ranks, but the addresses of 1 device" in few.err
