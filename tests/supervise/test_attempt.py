"""One attempt after the other, with the real mpirun and two ranks: every way to end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from clusterseg.cluster.processes import process_state
from clusterseg.runs import files
from clusterseg.runs.claims import Patience, claim_next
from clusterseg.runs.control import StopReason, read_stop, request_stop
from clusterseg.runs.heartbeat import read_heartbeat
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Cause, Checkpoint, Claim
from clusterseg.supervise import attempt as room
from clusterseg.supervise.scheduler import NoScheduler
from tests.runs import synthetic
from tests.runs.claiming import World, wanted
from tests.supervise.runs import (
    PROGRAM,
    QUICK,
    attempt,
    end_of,
    finish,
    make_run,
    ranks_of,
    resubmit,
    supervise,
    wait_until,
    wrote_steps,
)

pytestmark = pytest.mark.slow

# What mpirun is here, and plain processes.
LAUNCHERS = pytest.mark.parametrize("launcher", ["auto", "local"])


def attempts(run: RunPaths) -> list[str]:
    return sorted(path.name for path in run.attempts.iterdir())


def attempt_by_hand(run: RunPaths, *launch: str) -> subprocess.CompletedProcess[str]:
    """`clusterseg attempt RUN_DIR -- LAUNCH_LINE`."""
    command = [sys.executable, "-m", "clusterseg.cli.main", "attempt", str(run.root), "--"]
    return subprocess.run(
        [*command, *launch], capture_output=True, text=True, timeout=60, check=False
    )


def test_done(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    code, said = supervise(run)
    assert code == 0, said
    end = end_of(run, 0)
    expected = {"cause": "done", "exit_code": 0, "will_restart": False, "first_step": 1}
    assert end | expected | {"last_step": 5, "error": None} == end
    claim = json.loads(run.attempt(0).claim.read_bytes())
    assert claim["ranks"] == 2
    assert claim["argv"][-1] == str(PROGRAM)
    assert str(run.root) in claim["argv"]
    assert read_heartbeat(run.attempt(0).heartbeat) is not None
    assert "rank 1 of attempt 0 starts" in run.attempt(0).log(1).read_text()
    for path in run.root.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    # The same job again (a requeue by hand) changes nothing.
    before = sorted(run.root.rglob("*"))
    code, said = supervise(run)
    assert (code, "done already" in said) == (0, True)
    assert sorted(run.root.rglob("*")) == before


def test_crash_is_restarted_within_the_budget(tmp_path: Path) -> None:
    # Without events, since the same error at the same step would not be retried.
    run = make_run(tmp_path, "--mute", "--steps", "40", "--fail", "exit3:1:3:2")
    code, said = supervise(run)
    assert code == 0, said
    assert attempts(run) == ["000", "001", "002"]
    first = end_of(run, 0)
    assert first["cause"] == "crash"
    assert first["will_restart"] is True
    assert (first["exit_code"], first["failed_rank"]) == (3, 1)
    assert end_of(run, 2)["cause"] == "done"


def test_crash_beyond_the_budget_fails(tmp_path: Path) -> None:
    run = make_run(tmp_path, "--mute", "--steps", "40", "--fail", "exit3:1:3", restart={"crash": 1})
    code, said = supervise(run)
    assert code == 1, said
    assert attempts(run) == ["000", "001"]
    assert [end_of(run, number)["will_restart"] for number in (0, 1)] == [True, False]


def test_the_same_error_at_the_same_step_is_not_retried_for_ever(tmp_path: Path) -> None:
    run = make_run(tmp_path, "--fail", "error:0:3", ranks=1, restart={"crash": "unlimited"})
    code, said = supervise(run)
    assert code == 1, said
    assert attempts(run) == ["000", "001"]
    assert "the same error at step 2" in said


@LAUNCHERS
def test_a_killed_rank_is_named_with_its_host_and_last_lines(launcher: str, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    note = 'echo "$CLUSTERSEG_RUN $CLUSTERSEG_EVENT $CLUSTERSEG_STATE" >> ' + str(notes)
    keys = {"restart": {"crash": 0}, "notify": ["sh", "-c", note], "launcher": launcher}
    run = make_run(tmp_path, "--fail", "kill:1:3", **keys)
    code, said = supervise(run)
    assert code == 1
    end = end_of(run, 0)
    assert (end["cause"], end["signal"], end["failed_rank"]) == ("crash", 9, 1)
    assert end["failed_host"] == os.uname().nodename.split(".")[0]
    assert end["will_restart"] is False
    for text in (end["error"], said, run.attempt(0).supervisor_log.read_text()):
        assert "rank 1" in text
        assert "SIGKILL" in text
        assert "rank 1 comes to its end" in text
    assert notes.read_text() == f"{run.run_id} give-up failed\n"


@pytest.mark.parametrize("ranks", [1, 2])
def test_why_a_launcher_started_nothing_is_said(ranks: int, tmp_path: Path) -> None:
    flags = {"launcher_args": ["--no-such-flag"], "launcher": "openmpi5"}
    run = make_run(tmp_path, ranks=ranks, restart={"crash": 0}, **flags)
    code, said = supervise(run)
    assert code == 1, said
    end = end_of(run, 0)
    assert (end["cause"], end["failed_rank"]) == ("crash", None)
    first, title, *lines = end["error"].split("\n")
    assert first.startswith("the launcher ended with exit code ")
    assert "--no-such-flag" in first
    assert title == "the launcher's last lines:"
    assert any("--no-such-flag" in line for line in lines)


def test_the_launcher_writes_a_file_a_rank_where_it_is_asked_to(tmp_path: Path) -> None:
    run = make_run(tmp_path, launcher="openmpi5", launcher_output="files")
    code, said = supervise(run)
    assert code == 0, said
    folder = run.attempt(0).launcher
    # Open MPI 5 makes the folder itself 0750.
    assert run.attempt(0).folder.stat().st_mode & 0o777 == 0o700
    assert sorted(file.name.split(".", 1)[0] for file in folder.iterdir()) == ["rank", "rank"]
    plain = make_run(tmp_path, launcher="openmpi5")
    assert supervise(plain)[0] == 0
    assert not plain.attempt(0).launcher.exists()


def test_a_launch_that_fails_twice_alike_is_not_retried(tmp_path: Path) -> None:
    run = make_run(tmp_path, launcher_args=["--no-such-flag"], launcher="openmpi5")
    code, said = supervise(run)
    assert code == 1, said
    assert attempts(run) == ["000", "001"]
    assert "the same error at the launch as before: not retried" in said


@LAUNCHERS
@pytest.mark.parametrize(
    ("number", "cause"), [(signal.SIGTERM, "preempted"), (signal.SIGINT, "cancelled")]
)
def test_a_signal_stops_all_ranks_resumably(
    number: int, cause: str, launcher: str, tmp_path: Path
) -> None:
    run = make_run(tmp_path, "--steps", "10000", launcher=launcher)
    with attempt(run) as process:
        wait_until(lambda: wrote_steps(run), "both ranks step")
        process.send_signal(number)
        code, said = finish(process)
    assert code == 75, said
    end = end_of(run, 0)
    assert (end["cause"], end["exit_code"], end["will_restart"]) == (cause, 75, False)
    assert end["last_step"] >= 1
    request = read_stop(run.stop_file(0))
    assert request is not None
    assert request.reason == cause
    # `resume` goes on in the same directory, as a new submission with fresh stop file.
    resubmit(run)
    with attempt(run) as process:
        wait_until(lambda: wrote_steps(run, 1), "the second attempt steps")
        request_stop(run.stop_file(1), StopReason.CANCEL)
        assert finish(process)[0] == 75
    assert end_of(run, 1)["cause"] == "cancelled"
    assert json.loads(run.attempt(1).claim.read_bytes())["submission"] == 1


def test_a_cancel_that_only_the_ranks_have_read_is_no_preemption(tmp_path: Path) -> None:
    run = make_run(tmp_path, "--steps", "10000")
    with attempt(run, {**QUICK, "look": 1000.0}) as process:
        wait_until(lambda: wrote_steps(run), "both ranks step")
        request_stop(run.stop_file(0), StopReason.CANCEL)
        code, said = finish(process)
    assert code == 75, said
    assert end_of(run, 0)["cause"] == "cancelled"


def test_a_killed_supervisor_counts_against_the_budget_of_the_next(tmp_path: Path) -> None:
    run = make_run(tmp_path, "--steps", "10000", restart={"crash": 0})
    with attempt(run) as process:
        wait_until(lambda: wrote_steps(run), "both ranks step")
        process.kill()
        process.wait()
        wait_until(lambda: not ranks_of(run), "launcher and ranks are gone", seconds=10)
    code, said = supervise(run)
    assert code == 1, said
    assert (end_of(run, 1)["cause"], end_of(run, 1)["will_restart"]) == ("unknown", False)
    assert "restart.crash is 0" in end_of(run, 1)["error"]
    assert not run.attempt(1).log(0).exists()


def test_cancel_now_does_not_wait(tmp_path: Path) -> None:
    run = make_run(tmp_path, "--steps", "10000", "--deaf")
    with attempt(run, {**QUICK, "stop_command": 1000.0}) as process:
        wait_until(lambda: wrote_steps(run), "both ranks step")
        request_stop(run.stop_file(0), StopReason.CANCEL)
        wait_until(lambda: "asked to stop" in run.attempt(0).supervisor_log.read_text(), "asked")
        request_stop(run.stop_file(0), StopReason.CANCEL_NOW)
        code, said = finish(process)
    assert code == 1, said
    assert end_of(run, 0)["cause"] == "cancelled"


def test_ranks_that_do_not_stop_in_time_are_ended(tmp_path: Path) -> None:
    run = make_run(tmp_path, "--steps", "10000", "--deaf")
    with attempt(run, {**QUICK, "stop_command": 1.0}) as process:
        wait_until(lambda: wrote_steps(run), "both ranks step")
        process.send_signal(signal.SIGTERM)
        code, said = finish(process)
    assert code == 75, said
    assert end_of(run, 0)["cause"] == "preempted"
    assert "did not stop in time" in said


@pytest.mark.parametrize("within", [None, 6.0])
def test_a_save_may_end_if_nothing_forbids(within: float | None, tmp_path: Path) -> None:
    run = make_run(tmp_path, "--steps", "10000", "--deaf")
    unfinished = run.checkpoints / ".weights-0001-0.5000.safetensors.attempt-0.abcd.tmp"
    timing = {**QUICK, "stop_command": 1.0, "hang": {"base": 2.0}}
    log = run.attempt(0).supervisor_log
    with attempt(run, timing) as process:
        wait_until(lambda: wrote_steps(run), "both ranks step")
        asked = time.monotonic()
        deadline = None if within is None else time.time() + within
        request_stop(run.stop_file(0), StopReason.PREEMPTED, deadline)
        while time.monotonic() < asked + 5:
            with unfinished.open("ab") as file:
                file.write(b"x")
            assert "did not stop in time" not in log.read_text()
            time.sleep(0.2)
        if within is None:  # it grows no more
            wait_until(lambda: "did not stop in time" in log.read_text(), "they are ended", 10)
        else:
            while "did not stop in time" not in log.read_text():
                with unfinished.open("ab") as file:
                    file.write(b"x")
                assert time.monotonic() < asked + within + 3
                time.sleep(0.2)
        code, said = finish(process)
    assert code == 75, said


def test_a_launcher_that_is_deaf_to_TERM_is_killed(tmp_path: Path) -> None:
    run = make_run(tmp_path, ranks=1)
    deaf = "trap '' TERM; echo deaf; while :; do sleep 0.1; done"
    with attempt(run, launch=["sh", "-c", deaf]) as process:
        log = run.attempt(0).supervisor_log
        wait_until(lambda: log.exists() and "launcher: deaf" in log.read_text(), "it is deaf")
        request_stop(run.stop_file(0), StopReason.CANCEL_NOW)
        code, said = finish(process)
    assert code == 1, said
    assert (end_of(run, 0)["cause"], end_of(run, 0)["signal"]) == ("cancelled", 9)


def test_the_time_limit_stops_before_it_is_reached(tmp_path: Path) -> None:
    # Slurm's smallest limit is a minute; half of 0:20 is the longest lead.
    run = make_run(tmp_path, "--steps", "10000", resources={"time": "0:20"})
    code, said = supervise(run)
    assert code == 75, said
    claimed = json.loads(run.attempt(0).claim.read_bytes())["t"]
    assert end_of(run, 0)["t"] - claimed < 20
    assert end_of(run, 0)["cause"] == "time_limit"


def test_how_long_saves_took_is_known_in_the_next_attempt(tmp_path: Path) -> None:
    run = make_run(tmp_path, "--steps", "10000", resources={"time": "0:30"})
    synthetic.claim(run, 0)
    save = Checkpoint(t=1e9, rank=0, epoch=0, step=1, file="w", blocked_seconds=0.1)
    synthetic.write_events(run, 0, 0, [save])
    synthetic.end(run, 0, Cause.PREEMPTED, will_restart=True)
    code, said = supervise(run)
    assert code == 75, said
    assert "the time limit is reached in 10 s" in said  # unknown, it would be asked at half time


@pytest.mark.parametrize(("launcher", "ranks"), [("auto", 2), ("local", 1), ("local", 2)])
def test_a_supervisor_killed_leaves_nothing_behind_and_the_next_one_claims(
    launcher: str, ranks: int, tmp_path: Path
) -> None:
    run = make_run(tmp_path, "--steps", "10000", ranks=ranks, launcher=launcher)
    with attempt(run) as process:
        wait_until(lambda: wrote_steps(run, ranks=ranks), "the ranks step")
        assert len(ranks_of(run)) >= ranks + (ranks > 1)
        process.kill()
        process.wait()
        wait_until(lambda: not ranks_of(run), "launcher and ranks are gone", seconds=10)
    assert not run.attempt(0).end.exists()
    with attempt(run) as process:
        wait_until(lambda: wrote_steps(run, 1, ranks), "the next attempt steps")
        process.send_signal(signal.SIGTERM)
        assert finish(process)[0] == 75
    assert end_of(run, 1)["attempt"] == 1


@LAUNCHERS
def test_a_killed_launcher_leaves_no_ranks(launcher: str, tmp_path: Path) -> None:
    run = make_run(tmp_path, "--steps", "10000", restart={"crash": 0}, launcher=launcher)
    with attempt(run) as process:
        wait_until(lambda: wrote_steps(run), "both ranks step")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        (process_id,) = set(map(int, children)) & set(ranks_of(run))
        os.kill(process_id, signal.SIGKILL)
        code, said = finish(process)
    assert code == 1, said
    end = end_of(run, 0)
    assert (end["cause"], end["signal"]) == ("crash", 9)
    assert "the launcher was killed" in end["error"]


def test_a_duplicate_touches_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path, "--steps", "10000")
    with attempt(run) as first:
        wait_until(lambda: wrote_steps(run), "both ranks step")
        second = attempt_by_hand(run)
        assert (second.returncode, "duplicate" in second.stderr) == (0, True), second.stderr
        assert attempts(run) == ["000"]
        assert read_stop(run.stop_file(0)) is None
        assert first.poll() is None
        first.send_signal(signal.SIGTERM)
        assert finish(first)[0] == 75


def test_a_frozen_rank_is_a_hang_and_named(tmp_path: Path) -> None:
    run = make_run(tmp_path, "--fail", "freeze:1:4", "--steps", "10000", restart={"crash": 0})
    timing = {**QUICK, "hang": {"startup": 60.0, "base": 1.0, "factor": 5.0}}
    code, said = supervise(run, timing)
    assert code == 1, said
    end = end_of(run, 0)
    assert (end["cause"], end["failed_rank"]) == ("hang", 1)
    assert "rank 1" in end["error"]
    assert "hangs after step 3" in end["error"]


def test_a_program_without_events_never_hangs(tmp_path: Path) -> None:
    run = make_run(tmp_path, "--mute", "--steps", "60")
    timing = {**QUICK, "hang": {"startup": 0.5, "base": 0.5, "factor": 1.0}}
    code, said = supervise(run, timing)
    assert code == 0, said


def test_a_supervisor_that_lost_the_run_ends_its_ranks(tmp_path: Path) -> None:
    """It was paused for so long that its successor took it for dead."""
    run = make_run(tmp_path, "--steps", "10000")
    with attempt(run) as process:
        wait_until(lambda: wrote_steps(run), "both ranks step")
        process.send_signal(signal.SIGSTOP)
        wait_until(lambda: process_state(process.pid) == "T", "it is stopped")
        files.make_private_dir(run.attempt(1).folder)
        files.commit_new(run.attempt(1).claim, b"{}")
        process.send_signal(signal.SIGCONT)
        code, said = finish(process)
    assert code == 0, said
    assert "was claimed by another process" in said
    assert not run.attempt(0).end.exists()


def test_a_stop_asked_for_between_two_attempts(tmp_path: Path) -> None:
    run = make_run(tmp_path, "--mute", "--fail", "exit3:1:1", restart={"crash": 10})
    with attempt(run) as process:
        # Two failures in: the back-off is 4 seconds by now.
        wait_until(run.attempt(2).end.exists, "the third attempt has failed")
        process.send_signal(signal.SIGTERM)
        code, said = finish(process)
    assert code == 75, said
    assert end_of(run, 3)["cause"] == "preempted"
    assert end_of(run, 3)["will_restart"] is False
    assert not run.attempt(3).log(0).exists()


def test_a_stop_asked_for_before_the_claim_starts_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    files.make_empty(run.stop_file(0))
    request_stop(run.stop_file(0), StopReason.CANCEL)
    code, said = supervise(run)
    assert code == 75, said
    assert end_of(run, 0)["cause"] == "cancelled"
    assert not run.attempt(0).log(0).exists()


def test_it_beats_before_a_scheduler_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slurm may take its time, and others see only the heartbeat."""
    run = make_run(tmp_path)
    files.make_empty(run.stop_file(0))
    request_stop(run.stop_file(0), StopReason.CANCEL)
    beats = []

    class Slow(NoScheduler):
        def claimed(self) -> None:
            beats.append(read_heartbeat(run.attempt(0).heartbeat))

    monkeypatch.setattr(room, "scheduler_of", lambda *_: Slow(None))
    assert room.supervise(run.root) == 75
    assert [beat is not None for beat in beats] == [True]


def test_a_full_disk_is_tried_once_more(tmp_path: Path) -> None:
    run = make_run(tmp_path, "--fail", "full:0:2", ranks=1)
    code, said = supervise(run)
    assert code == 75, said
    assert [end_of(run, number)["cause"] for number in (0, 1)] == ["disk_full", "disk_full"]
    assert attempts(run) == ["000", "001"]


def test_a_disk_that_takes_nothing_is_named_and_the_end_recorded(
    small_disk: Callable[..., Path],
) -> None:
    """Neither an event nor a line of a log could say it, and no room is left for end.json."""
    disk = small_disk(8 << 20)
    run = make_run(disk / "of", "--fail", "brimful:0:2", ranks=1)
    code, said = supervise(run)
    assert code == 75, said
    end = end_of(run, 0)
    assert end["cause"] == "disk_full"
    assert end["error"].startswith("disk full: ")
    assert "rank 0 of attempt 0 starts" in end["error"]  # what it could still print
    assert "disk full: " in said
    assert not run.attempt(0).ballast.exists()
    assert attempts(run) == ["000"]


def test_the_next_attempt_waits_for_the_save_of_one_that_lives(tmp_path: Path) -> None:
    """As a requeued job finds the supervisor of a node that Slurm wrote off still at work."""
    run = make_run(tmp_path, "--steps", "10000")
    with attempt(run) as process:
        wait_until(lambda: wrote_steps(run), "both ranks step")
        claimed = msgspec.json.decode(run.attempt(0).claim.read_bytes(), type=Claim)
        witness = World(process=None, job=True)
        request = wanted(claimed.job_id, pid=1)
        second = claim_next(run, request, witness, Patience(grace=20.0, look=0.1))
        assert finish(process)[0] == 75
    assert second is not None
    assert second.attempt == 1
    end = end_of(run, 0)
    assert (end["cause"], end["exit_code"]) == ("preempted", 75)
    assert second.t >= end["t"]


def test_the_wrong_number_of_ranks_is_no_silent_success(tmp_path: Path) -> None:
    """A launcher that starts singletons, each of them a world of its own, and reports success."""
    run = make_run(tmp_path, "--steps", "100", restart={"crash": 0})
    plan = json.loads(run.submission(0).plan.read_bytes())
    rank = " ".join(f"'{word}'" for word in plan["argv"][plan["argv"].index("train") - 1 :])
    world = "OMPI_COMM_WORLD_RANK={} OMPI_COMM_WORLD_SIZE={}"
    script = f"{world.format(0, 1)} {rank} & {world.format(1, 3)} {rank}; wait"
    process = attempt_by_hand(run, "sh", "-c", script)
    assert process.returncode == 1, process.stderr
    assert "world of 1" in end_of(run, 0)["error"]


@pytest.mark.parametrize("told", [True, False])
def test_a_launcher_that_goes_on_without_a_rank_that_failed_is_ended(
    tmp_path: Path, told: bool
) -> None:
    """As Hydra does with ranks that are not inside of MPI."""
    fault = "tell3" if told else "exit3"
    run = make_run(tmp_path, "--steps", "60", "--fail", f"{fault}:1:3", restart={"crash": 0})
    plan = json.loads(run.submission(0).plan.read_bytes())
    rank = " ".join(f"'{word}'" for word in plan["argv"][plan["argv"].index("train") - 1 :])
    world = "OMPI_COMM_WORLD_RANK={} OMPI_COMM_WORLD_SIZE=2"
    script = f"{world.format(0)} {rank} & {world.format(1)} {rank}; wait"
    with attempt(run, {**QUICK, "cleanup": 1.0}, launch=["sh", "-c", script]) as process:
        code, said = finish(process)
    assert ("rank 1 failed and the launcher goes on: ending the others" in said) == told, said
    end = end_of(run, 0)
    if told:
        assert (code, end["cause"], end["failed_rank"]) == (1, "crash", 1)
        assert end["error"].startswith("rank 1 on ")
        assert "failed: E: the moon" in end["error"]
        assert end["last_step"] < 60
    else:  # nobody knows
        assert end["last_step"] == 60


def test_who_called_mpi_abort_is_known_even_if_it_was_killed_for_it(tmp_path: Path) -> None:
    """Hydra kills all ranks at once, be it that their wrappers still write so."""
    run = make_run(tmp_path, restart={"crash": 0})
    start = {"kind": "rank_start", "t": 1.0, "attempt": 0, "world_size": 2, "host": "n1"}
    killed = {"kind": "rank_end", "status": "failed", "error": "the program ended with signal 9"}
    lines = [f"cd {run.attempt(0).ranks}"]
    for rank, told in ((0, 2.0), (1, 3.0)):
        events = [start | {"rank": rank}, killed | {"rank": rank, "t": told}]
        lines += [f"echo '{json.dumps(event)}' >> 0000{rank}.jsonl" for event in events]
    said = "Abort(7) on node 1 (rank 1 in comm 0): application called MPI_Abort(MPI_COMM_WORLD, 7)"
    lines += [f"echo '{said} - process 1' > 00001.log", "exit 7"]
    process = attempt_by_hand(run, "sh", "-c", "; ".join(lines))
    assert process.returncode == 1, process.stderr
    end = end_of(run, 0)
    assert (end["failed_rank"], end["failed_host"], end["signal"]) == (1, "n1", None)
    assert end["error"].startswith("rank 1 on n1 exited with code 7\nits last lines:\n  Abort(7)")


def test_a_launcher_that_is_not_there(tmp_path: Path) -> None:
    run = make_run(tmp_path, restart={"crash": 0})
    process = attempt_by_hand(run, "/no/such/mpirun", "-np", "2")
    assert process.returncode == 1
    assert "/no/such/mpirun can't be started" in end_of(run, 0)["error"]
    assert "Traceback" not in process.stderr
