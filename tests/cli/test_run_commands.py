"""`list`, `status`, `logs`, `wait` and `cancel` over runs of every kind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest

from clusterseg.cli.waiting_view import why_it_waits
from clusterseg.cluster.look import look
from clusterseg.cluster.slurm.jobs import JobFacts, JobState
from clusterseg.runs import files
from clusterseg.runs.attempts import pack_attempt
from clusterseg.runs.checkpoint_file import Tensor
from clusterseg.runs.checkpoints import checkpoint_name, commit_checkpoint
from clusterseg.runs.control import StopReason, request_stop
from clusterseg.runs.eventlog import EventWriter
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.placement import PlacementCheck, write_check
from clusterseg.runs.records import (
    Cause,
    Checkpoint,
    CheckpointHeader,
    Epoch,
    RankEnd,
    RankStart,
    Steps,
)
from tests.cli.conftest import Done
from tests.cluster import slurm_runs
from tests.cluster.slurm_shims import Shims
from tests.devcluster import DevCluster
from tests.runs import synthetic

Cli = Callable[..., Done]


def steps(rank: int, step: int, *, t: float = 0.0) -> Steps:
    return Steps(
        t=t or time.time() - 1000 + step,
        rank=rank,
        epoch=(step - 1) // 100,
        step=step,
        count=10,
        images=40,
        seconds=2.0,
        loss=0.5,
        learning_rate=0.01,
    )


def trained(run: RunPaths, attempt: int = 0, *, last: int = 150) -> None:
    """Two ranks that have come to step `last`, windows of ten steps, epochs of a hundred."""
    for rank in (0, 1):
        start = RankStart(t=1.0, rank=rank, attempt=attempt, world_size=2, host=f"n{rank}")
        events: list[object] = [start]
        for step in range(10, last + 1, 10):
            events.append(steps(rank, step))
            if step % 100 == 0 and rank == 0:
                epoch = step // 100
                events.append(
                    Epoch(t=1.0, rank=0, epoch=epoch, step=step, loss=0.4, val_accuracy=0.75)
                )
                file = f"weights-{epoch:04}-0.7500.safetensors"
                events.append(Checkpoint(t=1.0, rank=0, epoch=epoch, step=step, file=file))
        synthetic.write_events(run, attempt, rank, events)  # type: ignore[arg-type]


@pytest.fixture
def running(runs_dir: Path) -> RunPaths:
    run = synthetic.make_run(runs_dir, "demo-20260101-000000-aaaa")
    synthetic.claim(run, 0, alive=True)
    trained(run)
    return run


@pytest.fixture
def on_slurm(
    slurm_cluster: DevCluster, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> DevCluster:
    """This process is on the cluster's login node."""
    for name, value in slurm_cluster.environ.items():
        monkeypatch.setenv(name, value)
    return slurm_cluster


@pytest.fixture
def stopped(runs_dir: Path) -> RunPaths:
    run = synthetic.make_run(runs_dir, "demo-20260101-000000-bbbb")
    synthetic.claim(run, 0)
    for rank in (0, 1):
        run.attempt(0).log(rank).write_text("".join(f"line {n} of {rank}\n" for n in range(1, 6)))
    run.attempt(0).supervisor_log.write_text("supervised\n")
    synthetic.end(run, 0, Cause.PREEMPTED)
    return run


# --- list ---------------------------------------------------------------------------------


def test_list_of_nothing_says_where_it_looked(cli: Cli, runs_dir: Path) -> None:
    done = cli("list")
    assert (done.code, done.out) == (0, "")
    assert str(runs_dir) in done.err
    assert cli("list", "--json").json == []


def test_list_is_newest_first_and_bears_junk(cli: Cli, runs_dir: Path) -> None:
    for number, created in ((1, 3e9), (2, 1e9), (3, 2e9)):
        synthetic.make_run(runs_dir, f"r{number}-x", created=created)
    (runs_dir / "junk").mkdir()
    damaged = synthetic.make_run(runs_dir, "damaged-x")
    damaged.identity.write_bytes(b"{")
    done = cli("list", "--json")
    assert [row["run"] for row in done.json] == ["r1-x", "r3-x", "r2-x"]
    assert "damaged-x/run.json can't be read" in done.err
    assert [row["run"] for row in cli("list", "--json", "-n", "1").json] == ["r1-x"]


def test_list_shows_every_state(cli: Cli, runs_dir: Path) -> None:
    for cause in (Cause.DONE, Cause.PREEMPTED, Cause.CRASH, Cause.CANCELLED):
        run = synthetic.make_run(runs_dir, f"{cause}-x")
        synthetic.claim(run, 0)
        synthetic.end(run, 0, cause)
    request_stop(RunPaths(runs_dir / "cancelled-x").stop_file(0), StopReason.CANCEL_NOW)
    synthetic.make_run(runs_dir, "waiting-x", started=False)
    alive = synthetic.make_run(runs_dir, "alive-x")
    synthetic.claim(alive, 0, alive=True)
    rows = {row["run"]: row for row in cli("list", "--json").json}
    assert {run: row["state"] for run, row in rows.items()} == {
        "done-x": "done",
        "preempted-x": "stopped",
        "crash-x": "failed",
        "cancelled-x": "cancelled",
        "waiting-x": "queued",
        "alive-x": "running",
    }
    assert rows["waiting-x"]["note"] == "it was never started"
    assert rows["alive-x"]["ranks"] == 2
    table = cli("list").out.splitlines()
    assert table[0].split()[:2] == ["RUN", "STATE"]
    assert len(table) == 7


def test_a_hostile_folder_name_drives_no_terminal(cli: Cli, runs_dir: Path) -> None:
    synthetic.make_run(runs_dir, "x\x1b[2J\n[red]\u202e-x")
    for done in (cli("list"), cli("list", "-n", "5")):
        assert "\x1b" not in done.out
        assert "\u202e" not in done.out
        assert len(done.out.splitlines()) == 2
    assert cli("list", "--json").json[0]["run"].startswith("x\x1b[2J\n")


# --- status -------------------------------------------------------------------------------


def test_status_shows_progress_and_ranks(cli: Cli, running: RunPaths) -> None:
    status = cli("status", "demo", "--json").json
    assert status["state"] == "running"
    assert status["exit_code"] is None
    progress = status["progress"]
    assert (progress["epoch"], progress["epochs"]) == (1, 4)
    assert (progress["step"], progress["steps"]) == (150, 400)
    assert progress["loss"] == 0.5
    assert progress["images_per_second"] == pytest.approx(40.0)  # 2 ranks x 40 images / 2 s
    assert progress["val_accuracy"] == 0.75
    assert progress["checkpoint"] == "weights-0001-0.7500.safetensors"
    assert [(rank["rank"], rank["host"], rank["step"]) for rank in status["ranks"]] == [
        (0, "n0", 150),
        (1, "n1", 150),
    ]
    assert 840 < status["ranks"][0]["age"] < 900
    page = cli("status", running.root)
    assert "epoch 1 of 4, step 150 of 400" in page.out
    assert "clusterseg cancel" in page.err


def test_status_and_logs_tell_of_ranks_that_are_not_where_they_were_planned(
    cli: Cli, running: RunPaths
) -> None:
    before = cli("status", "demo", "--json").json["placement"]
    assert (before["attempt"], before["as_planned"], before["problems"]) == (0, None, [])
    ranks = [(host["host"], [rank["rank"] for rank in host["ranks"]]) for host in before["hosts"]]
    assert ranks == [("n0", [0]), ("n1", [1])]
    assert "placement     not compared with the plan" in cli("status", "demo").out
    assert "placement" not in cli("logs", "demo").err
    problem = "the ranks run on {n0: 1, \x1bn1: 1}"
    write_check(running.attempt(0), PlacementCheck(t=time.time(), problems=[problem], ranks=[1]))
    found = cli("status", "demo", "--json").json["placement"]
    assert (found["as_planned"], found["problems"]) == (False, [problem])
    planned = [rank["as_planned"] for host in found["hosts"] for rank in host["ranks"]]
    assert planned == [True, False]
    page = cli("status", "demo").out
    assert "placement     NOT as planned" in page
    said = "the ranks run on {n0: 1, \\x1bn1: 1}"
    assert f"  ! {said}\n" in page
    (running.attempt(0).log(0)).write_text("hello\n")
    for options in ((), ("--json",), ("--rank", 0)):
        assert f"note: attempt 0: placement: {said}\n" in cli("logs", "demo", *options).err
    (running.attempt(0).placement).write_text("{")  # a record that can't be read is none
    assert cli("status", "demo", "--json").json["placement"]["as_planned"] is None


def test_a_run_that_runs_does_not_wait(running: RunPaths, runs_dir: Path, tmp_path: Path) -> None:
    job = JobFacts(id="7", number=7, state=JobState.PENDING, reason="BeginTime")
    nowhere = {"PATH": str(tmp_path)}
    assert why_it_waits(look(running), job, nowhere) is None
    waiting = synthetic.make_run(runs_dir, "waits-x", started=False)
    assert why_it_waits(look(waiting), job, nowhere) is not None


def test_status_of_a_failure_names_it_and_what_to_do(cli: Cli, runs_dir: Path) -> None:
    run = synthetic.make_run(runs_dir, "demo-x")
    synthetic.claim(run, 0)
    synthetic.end(run, 0, Cause.CRASH, error="rank 1 on n7 exited with code 3\nboom\n\x1b[2Jbang")
    done = cli("status", "demo")
    assert "demo-x is failed (crash): rank 1 on n7 exited with code 3" in done.out
    assert "  | boom" in done.out
    assert "\x1b" not in done.out
    assert "clusterseg resume demo-x" in done.err


def test_status_of_a_run_that_is_over_tells_of_a_checkpoint_that_is_not_what_was_saved(
    cli: Cli, runs_dir: Path
) -> None:
    run = synthetic.make_run(runs_dir, "demo-x")
    synthetic.claim(run, 0)
    header = CheckpointHeader(epoch=1, step=9, step_in_epoch=0, attempt=0, t=1)
    tensor = Tensor("model/a", "F32", (1,), memoryview(array("f", [1.0])))
    run.checkpoints.mkdir(exist_ok=True)
    name = checkpoint_name(1, 0.5)
    saved = commit_checkpoint(run.checkpoints, name, header, [tensor], accepted={})
    ranks = run.attempt(0).ranks
    ranks.mkdir(exist_ok=True)
    with EventWriter(run.attempt(0).events(0)) as events:
        events.write(Checkpoint(t=1, rank=0, epoch=1, step=9, file=name))
    synthetic.end(run, 0, Cause.CANCELLED)
    assert "note" not in cli("status", "demo").out
    whole = saved.path.read_bytes()
    saved.path.write_bytes(whole[:-1])
    assert f"note: {name} is truncated or damaged" in cli("status", "demo").out
    saved.path.unlink()
    assert f"note: {name} is missing\n" in cli("status", "demo").out
    assert cli("status", "demo", "--json").json["problems"] == [f"{name} is missing"]


def test_status_of_a_run_never_started_says_how_to_start_it(cli: Cli, runs_dir: Path) -> None:
    synthetic.make_run(runs_dir, "demo-x", started=False)
    done = cli("status", "demo")
    assert "queued" in done.out
    assert "never started" in done.out
    assert "clusterseg resume demo-x" in done.err


def test_status_of_a_job_that_died_in_its_setup_shows_its_output(cli: Cli, runs_dir: Path) -> None:
    run = synthetic.make_run(runs_dir, "demo-x")
    run.submission(0).output.write_text("modules\nline 7: module: command not found\n")
    done = cli("status", "demo")
    assert "line 7: module: command not found" in done.out
    assert "before it started an attempt" in done.out


def test_status_counts_restarts(cli: Cli, runs_dir: Path) -> None:
    run = synthetic.make_run(runs_dir, "demo-x")
    for number in range(3):
        synthetic.claim(run, number)
        last = number == 2
        cause = Cause.DONE if last else Cause.CRASH
        synthetic.end(run, number, cause, will_restart=not last)
    pack_attempt(run.attempt(0))
    attempts = cli("status", "demo", "--json").json["attempts"]
    assert [attempt["cause"] for attempt in attempts] == ["crash", "crash", "done"]
    assert [attempt["will_restart"] for attempt in attempts] == [True, True, False]


@pytest.mark.parametrize("damage", ["plan", "claim", "end", "events", "identity", "heartbeat"])
def test_damage_is_told_and_hides_nothing_else(cli: Cli, running: RunPaths, damage: str) -> None:
    paths = {
        "plan": running.submission(0).plan,
        "claim": running.attempt(0).claim,
        "end": running.attempt(0).end,
        "events": running.attempt(0).events(1),
        "identity": running.identity,
        "heartbeat": running.attempt(0).heartbeat,
    }
    paths[damage].write_bytes(b"\xff{[\x00\n")
    done = cli("status", running.root)
    assert done.code == 0
    assert str(running.root) in done.out
    if damage not in ("claim",):
        assert "step 150" in done.out


def test_unknown_and_ambiguous_runs_are_usage_errors(
    cli: Cli, running: RunPaths, stopped: RunPaths
) -> None:
    for command in ("status", "logs", "wait", "cancel", "resume"):
        none = cli(command, "nothing")
        assert none.code == 2
        assert "no run 'nothing'" in none.err
        both = cli(command, "demo")
        assert both.code == 2
        assert running.run_id in both.err
        assert stopped.run_id in both.err
    told = cli("status", "nothing", "--json")
    assert told.json["errors"][0]["code"] == "unknown-run"


# --- logs ---------------------------------------------------------------------------------


def test_logs_name_the_ranks_where_there_are_several(cli: Cli, stopped: RunPaths) -> None:
    lines = cli("logs", "demo").out.splitlines()
    assert lines[0] == "[0] line 1 of 0"
    assert lines[-1] == "[1] line 5 of 1"
    assert len(lines) == 10


def test_logs_read_alike_from_a_packed_attempt(cli: Cli, stopped: RunPaths) -> None:
    asked = (("logs", "demo"), ("logs", "demo", "--rank", "1"), ("logs", "demo", "-n", "2"))
    asked += (("logs", "demo", "--supervisor"), ("logs", "demo", "-f"))
    before = [cli(*arguments).out for arguments in asked]
    pack_attempt(stopped.attempt(0))
    assert [cli(*arguments).out for arguments in asked] == before
    assert before[2].splitlines() == [
        f"[{rank}] line {number} of {rank}" for rank in (0, 1) for number in (4, 5)
    ]
    assert before[3] == "supervised\n"


def test_logs_of_chosen_ranks_and_attempts(cli: Cli, stopped: RunPaths) -> None:
    files.commit_new(stopped.submission(0).output, b"")
    assert cli("logs", "demo", "--rank", "1", "-n", "1").out == "[1] line 5 of 1\n"
    synthetic.claim(stopped, 1)
    stopped.attempt(1).log(0).write_text("second\n")
    assert cli("logs", "demo").out == "second\n"
    assert "line 5 of 1" in cli("logs", "demo", "--attempt", "0").out
    absent = cli("logs", "demo", "--attempt", "7")
    assert absent.code == 2
    assert "its attempts: 0, 1" in absent.err
    no_rank = cli("logs", "demo", "--rank", "5")
    assert no_rank.code == 2
    assert "no log of rank 5" in no_rank.err
    assert cli("logs", "demo", "--rank", "0", "--supervisor").code == 2


def test_logs_as_json(cli: Cli, stopped: RunPaths) -> None:
    lines = [json.loads(line) for line in cli("logs", "demo", "--json").out.splitlines()]
    assert lines[5] == {"attempt": 0, "source": 1, "text": "line 1 of 1"}


def test_without_ranks_logs_the_supervisor_and_the_script_are_shown(
    cli: Cli, stopped: RunPaths
) -> None:
    for rank in (0, 1):
        stopped.attempt(0).log(rank).unlink()
    stopped.submission(0).output.write_text("set up\n")
    for arguments in (("logs", "demo"), ("logs", "-f", "demo")):
        done = cli(*arguments)
        assert "supervised" in done.out
        assert "set up" in done.out


def test_before_any_attempt_the_script_is_shown(cli: Cli, runs_dir: Path) -> None:
    run = synthetic.make_run(runs_dir, "demo-x")
    assert "nothing was printed yet" in cli("logs", "demo").err
    run.submission(0).output.write_text("no such module\n")
    assert cli("logs", "demo").out == "no such module\n"
    assert "no such module" in cli("logs", "demo", "-f").out


def test_a_hostile_log_drives_no_terminal(cli: Cli, stopped: RunPaths) -> None:
    hostile = (
        b"\x1b[2J\x1b]0;title\x07 clear\n[/nope] [red]\n\x1b[31mred\x1b[0m\n\xff\xfe\x9b2J\n"
        b"10%\r20%\r\n\xe2\x80\xaeevil\ntab\there\n" + b"x" * 100_000 + b"\n" + b"no end"
    )
    stopped.attempt(0).log(0).write_bytes(hostile)
    for arguments in (("logs", "demo", "--rank", "0"), ("logs", "-f", "demo", "--rank", "0")):
        lines = cli(*arguments).out.splitlines()
        assert lines[0] == r"[0] \x1b[2J\x1b]0;title\x07 clear"
        assert lines[1] == "[0] [/nope] [red]"
        assert lines[2] == "[0] red"
        assert lines[3] == r"[0] \xff\xfe\x9b2J"
        assert lines[4:6] == ["[0] 10%", "[0] 20%"]
        assert lines[6] == r"[0] \u202eevil"
        assert lines[7] == "[0] tab\there"
        assert len(lines[8]) < 20_000
        assert lines[8].endswith("more characters)")
        assert lines[9] == "[0] no end"


def test_a_line_without_end_is_shown_in_pieces_not_held(cli: Cli, stopped: RunPaths) -> None:
    with stopped.attempt(0).log(0).open("wb") as file:
        for _ in range(40):
            file.write(b"y" * (1 << 20))
    out = cli("logs", "demo", "--rank", "0").out
    assert len(out) < 1 << 20
    assert "more characters)" in out


@pytest.mark.slow
def test_the_lines_do_not_wait_for_slurm(runs_dir: Path, tmp_path: Path) -> None:
    key = slurm_runs.new_key()
    run = slurm_runs.make_run(runs_dir, "demo-x", key=key, job_id="12")
    slurm_runs.claim(run, 0, key=key, job_id="12", t=time.time())
    slurm_runs.beat(run, 0, count=1, t=time.time())
    run.attempt(0).ranks.mkdir()
    run.attempt(0).log(0).write_text("first\n")
    shims = Shims(tmp_path / "shims")
    shims.fault("squeue", "late12")
    environ = {**os.environ, "PATH": shims.path, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    argv = [sys.executable, "-m", "clusterseg.cli.main", "logs", "-f", "demo-x"]
    began = time.monotonic()
    with subprocess.Popen(argv, env=environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            lines = [process.stdout.readline()]
            with run.attempt(0).log(0).open("a") as log:
                log.write("second\n")
            lines.append(process.stdout.readline())
            seconds = time.monotonic() - began
        finally:
            slurm_runs.end(run, 0, Cause.DONE)
        assert process.stdout.read() == ""
    assert lines == ["[0] first\n", "[0] second\n"]
    assert seconds < 9  # squeue is given up after 10
    assert process.returncode == 0


# --- wait and cancel ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cause", "code"), [(Cause.DONE, 0), (Cause.PREEMPTED, 75), (Cause.CRASH, 1), (Cause.NAN, 1)]
)
def test_wait_ends_with_the_code_of_the_run(
    cli: Cli, runs_dir: Path, cause: Cause, code: int
) -> None:
    run = synthetic.make_run(runs_dir, "demo-x")
    synthetic.claim(run, 0)
    synthetic.end(run, 0, cause)
    assert cli("wait", "demo").code == code
    done = cli("wait", "demo", "--json")
    assert done.code == code
    assert done.json["exit_code"] == code


def test_wait_does_not_wait_for_what_was_never_started(
    cli: Cli, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clusterseg.cli.ending.NEVER_STARTED", 0.0)
    synthetic.make_run(runs_dir, "demo-x", started=False)
    for command in (("wait",), ("logs", "-f")):
        done = cli(*command, "demo")
        assert done.code == 3
        assert "demo-x is queued: it was never started" in done.err
        assert "clusterseg resume demo-x" in done.err


@pytest.mark.slow
@pytest.mark.slurm
@pytest.mark.parametrize("command", [("wait",), ("wait", "--follow"), ("logs", "-f")])
def test_a_job_that_is_held_is_waited_for(
    cli: Cli,
    on_slurm: DevCluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
) -> None:
    for name in ("NEVER_STARTED_SLURM", "HELD"):
        monkeypatch.setattr(f"clusterseg.cli.ending.{name}", 0.0)
    for name in ("ending.NOW_AND_THEN", "follow.NOW_AND_THEN", "log_follow.SCHEDULER"):
        monkeypatch.setattr(f"clusterseg.cli.{name}", 1.0)
    (tmp_path / "job.yaml").write_text(
        "name: demo\ncommand: [echo, hello]\nscheduler: slurm\n"
        "resources: {ranks: 1, cpus_per_rank: 1, time: 5}\n"
        "slurm: {extra: [--begin=now+1hour]}\n"
    )
    monkeypatch.chdir(tmp_path)
    job = cli("submit", "job.yaml", "--json").json["job_id"]
    on_slurm.scontrol("uhold", job)

    def let_go() -> None:
        on_slurm.scontrol("release", job)
        on_slurm.scontrol("update", f"JobId={job}", "StartTime=now")

    timer = threading.Timer(6, let_go)
    timer.start()
    done = cli(*command, "demo")
    timer.join()
    assert done.code == 0
    said = f"waits: job {job} is held in Slurm (JobHeldUser); clusterseg resume demo-"
    assert (done.out + done.err).count(said) == 1
    on_slurm.wait_until(job, "COMPLETED")  # its script ends a moment after the run


def test_cancel_of_what_is_over_changes_nothing(cli: Cli, stopped: RunPaths) -> None:
    before = {path: path.stat().st_mtime_ns for path in stopped.root.rglob("*")}
    for arguments in (("cancel", "demo"), ("cancel", "--now", "demo")):
        done = cli(*arguments)
        assert done.code == 0
        assert "is stopped" in done.err
    assert {path: path.stat().st_mtime_ns for path in stopped.root.rglob("*")} == before


def test_cancel_now_of_a_crashed_run_asks_nobody(cli: Cli, runs_dir: Path) -> None:
    run = synthetic.make_run(runs_dir, "demo-x")
    synthetic.claim(run, 0)
    synthetic.end(run, 0, Cause.CRASH)
    done = cli("cancel", "--now", "demo")
    assert done.code == 0
    assert "is failed (crash)" in done.err
    assert [path.name for path in run.control.iterdir()] == ["stop-000"]
    assert run.stop_file(0).read_bytes() == b""


def test_cancel_now_of_a_killed_run_makes_it_cancelled(cli: Cli, runs_dir: Path) -> None:
    run = synthetic.make_run(runs_dir, "demo-x")
    synthetic.claim(run, 0)
    assert cli("status", "demo", "--json").json["state"] == "failed"
    assert cli("cancel", "demo").code == 0
    assert cli("status", "demo", "--json").json["state"] == "failed"
    assert cli("cancel", "--now", "demo").code == 0
    assert cli("status", "demo", "--json").json["state"] == "cancelled"


def test_cancel_that_takes_too_long_says_so(cli: Cli, running: RunPaths) -> None:
    done = cli("cancel", "demo", "--timeout", "0")
    assert done.code == 1
    assert "is still running; it was asked to stop" in done.err
    assert "clusterseg cancel --now" in done.err
    assert json.loads(running.stop_file(0).read_bytes())["reason"] == "cancel"
    told = cli("cancel", "demo", "--timeout", "0", "--json")
    assert (told.code, told.json["state"]) == (1, "running")
    assert "is still running; it was asked to stop" in told.err


def test_another_users_run_is_not_cancelled(
    cli: Cli, running: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: running.root.stat().st_uid + 1)
    done = cli("cancel", "demo")
    assert done.code == 2
    assert "belongs to another user" in done.err
    assert running.stop_file(0).read_bytes() == b""


def test_ended_ranks_say_how_they_ended(cli: Cli, running: RunPaths) -> None:
    synthetic.write_events(
        running, 0, 1, [RankEnd(t=time.time(), rank=1, status="failed", error="nan", step=150)]
    )
    ranks = cli("status", "demo", "--json").json["ranks"]
    assert [rank["status"] for rank in ranks] == ["training", "failed"]


def test_a_run_whose_folders_cannot_be_read_is_told(
    cli: Cli, stopped: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.listdir

    def listdir(path: os.PathLike[str]) -> list[str]:
        if Path(path) == stopped.attempts:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "listdir", listdir)
    done = cli("status", "demo")
    assert done.code == 1
    assert f"{stopped.attempts} can't be read: Permission denied" in done.err
    rows = cli("list", "--json")
    assert rows.json == []
    assert "Permission denied" in rows.err
