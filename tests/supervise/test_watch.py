"""Ranks seen through their event files; and the hangs found in them."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clusterseg.cluster.processes import host_name, process_state
from clusterseg.runs.eventlog import EventWriter
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Checkpoint, Phase, RankEnd, RankStart, Steps
from clusterseg.supervise.hang import HangWatch
from clusterseg.supervise.limits import Hang
from clusterseg.supervise.watch import FILES_A_ROUND, Watch
from clusterseg.train.patient_events import PatientEvents
from tests.supervise.runs import wait_until

LIMITS = Hang(startup=300, base=60, factor=5, validation=1800)


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    paths = RunPaths(tmp_path)
    paths.attempt(0).ranks.mkdir(parents=True)
    paths.checkpoints.mkdir()
    return paths


def write(run: RunPaths, rank: int, *events: object) -> None:
    with EventWriter(run.attempt(0).events(rank)) as writer:
        for event in events:
            writer.write(event)  # type: ignore[arg-type]


def steps(rank: int, step: int, *, count: int = 5, epoch: int = 0, seconds: float = 1.0) -> Steps:
    return Steps(
        t=float(step), rank=rank, epoch=epoch, step=step, count=count, images=1, seconds=seconds
    )


def started(rank: int, pid: int = 1) -> RankStart:
    return RankStart(t=0.0, rank=rank, attempt=0, world_size=2, host=host_name(), pid=pid)


def test_progress(run: RunPaths) -> None:
    watch = Watch(run.attempt(0), 2, begun=100.0)
    watch.look(101.0)
    assert (watch.first_step, watch.last_step, watch.window) == (None, None, 0.0)
    write(run, 0, started(0), steps(0, 11, count=1), steps(0, 15, seconds=7.0))
    write(run, 0, Checkpoint(t=1.0, rank=0, epoch=0, step=15, file="w", blocked_seconds=2.0))
    write(run, 1, started(1), steps(1, 11, count=1))
    watch.look(102.0)
    assert (watch.first_step, watch.last_step, watch.window) == (11, 15, 7.0)
    assert watch.longest_save == 2.0
    assert [rank.grew for rank in watch.ranks] == [102.0, 102.0]
    watch.look(103.0)
    assert [rank.grew for rank in watch.ranks] == [102.0, 102.0]
    write(run, 1, RankEnd(t=9.0, rank=1, status="failed", step=17, error="E"))
    watch.look(104.0)
    assert watch.last_step == 17
    facts = watch.facts()[1]
    assert (facts.step, facts.last_t, facts.end and facts.end.error) == (11, 9.0, "E")


def test_the_first_window_counts_only_until_there_is_another(run: RunPaths) -> None:
    """It holds the compilation: a hang would be seen minutes late for the rest of the attempt."""
    watch = Watch(run.attempt(0), 2, begun=0.0)
    write(run, 0, steps(0, 1, count=1, seconds=95.0))
    write(run, 1, steps(1, 1, count=1, seconds=96.0))
    watch.look(1.0)
    assert watch.window == 96.0
    write(run, 0, steps(0, 5, seconds=2.0))
    watch.look(2.0)
    assert watch.window == 2.0


def test_validation_follows_the_window_that_completes_an_epoch(run: RunPaths) -> None:
    watch = Watch(run.attempt(0), 1, begun=0.0)
    write(run, 0, started(0), steps(0, 5))
    watch.look(1.0)
    assert not watch.ranks[0].at_epoch_end
    write(run, 0, steps(0, 10, epoch=1))
    watch.look(2.0)
    assert watch.ranks[0].at_epoch_end
    write(run, 0, Phase(t=11.0, rank=0, name="validate", seconds=4.0))
    watch.look(3.0)
    assert not watch.ranks[0].at_epoch_end
    assert watch.longest_validation == 4.0


def test_each_sweep_of_an_lr_find_may_compile(run: RunPaths) -> None:
    write(run, 0, started(0), steps(0, 1, count=1), steps(0, 10))
    watch = Watch(run.attempt(0), 1, begun=0.0)
    watch.look(0.0)
    hangs = HangWatch(run, 0, watch, LIMITS, train=True)
    write(run, 0, Phase(t=1.0, rank=0, name="startup", seconds=9.0))
    watch.look(1.0)
    assert hangs.find(1.0 + 299) is None
    assert hangs.find(1.0 + 301) is not None
    write(run, 0, steps(0, 11, count=1, seconds=200.0))
    watch.look(201.0)
    assert watch.window == 1.0  # and a hang after it is not seen minutes late
    assert hangs.find(201.0 + 64) is None
    assert hangs.find(201.0 + 66) is not None


def test_a_rank_that_only_touches_its_file_lives(run: RunPaths) -> None:
    """A validation that a resumed attempt begins with is of any length, and no window is before."""
    write(run, 0, started(0), Phase(t=1.0, rank=0, name="restore", seconds=1.0))
    watch = Watch(run.attempt(0), 1, begun=0.0)
    watch.look(0.0)
    hangs = HangWatch(run, 0, watch, LIMITS, train=True)
    with EventWriter(run.attempt(0).events(0)) as events:
        time.sleep(0.05)  # the file system's clock may tick slowly
        events.touch()
    watch.look(200.0)
    assert hangs.find(200.0 + 299) is None
    assert hangs.find(200.0 + 301) is not None


def test_many_ranks_take_turns(run: RunPaths) -> None:
    count = 2 * FILES_A_ROUND + 10
    watch = Watch(run.attempt(0), count, begun=0.0)
    for rank in range(count):
        write(run, rank, started(rank))
    looks = 0
    while len(watch.starts()) < count:
        watch.look(1.0)
        looks += 1
        assert len(watch.starts()) <= looks * FILES_A_ROUND
    assert looks == 3
    write(run, count - 1, steps(count - 1, 5))
    watch.look_at_all(2.0)
    assert watch.last_step == 5


def hanging(run: RunPaths, *, train: bool = True) -> tuple[Watch, HangWatch]:
    """Two ranks that have written nothing since second 0; rank 1 is one window behind."""
    write(run, 0, started(0), steps(0, 10))
    write(run, 1, started(1), steps(1, 5))
    watch = Watch(run.attempt(0), 2, begun=0.0)
    watch.look(0.0)
    return watch, HangWatch(run, 0, watch, LIMITS, train=train)


def test_a_hang_is_said_in_a_sentence(run: RunPaths) -> None:
    _, hangs = hanging(run)
    assert hangs.find(64.0) is None
    found = hangs.find(66.0)
    assert found is not None
    assert found.rank == 1
    assert found.error == f"rank 1 on {host_name()} hangs after step 5"


def test_a_stopped_process_is_seen_even_in_validation(run: RunPaths) -> None:
    process = subprocess.Popen(["sleep", "60"])
    try:
        write(run, 0, started(0), steps(0, 10, epoch=1))
        write(run, 1, started(1, process.pid), steps(1, 10, epoch=1))
        watch = Watch(run.attempt(0), 2, begun=0.0)
        watch.look(0.0)
        hangs = HangWatch(run, 0, watch, LIMITS, train=True)
        assert hangs.find(100.0) is None
        process.send_signal(signal.SIGSTOP)
        wait_until(lambda: process_state(process.pid) == "T", "it is stopped")
        found = hangs.find(100.0)
        assert found is not None
        assert found.error.endswith(
            "rank 1 on " + host_name() + " hangs after step 10 (its process is stopped)"
        )
    finally:
        process.kill()
        process.wait()


def test_a_last_look_clears_who_has_written_meanwhile(run: RunPaths) -> None:
    _, hangs = hanging(run)
    write(run, 0, steps(0, 11))
    write(run, 1, steps(1, 11))
    assert hangs.find(66.0) is None
    assert hangs.find(132.0) is not None


def test_a_file_that_cannot_be_read_is_no_silence_and_hides_no_other(
    run: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, hangs = hanging(run)

    def stale() -> list[object]:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(watch.ranks[0].tail, "read", stale)
    for second in range(10, 400, 30):
        write(run, 1, steps(1, 10 + second))
        watch.look(float(second))
        assert hangs.find(float(second)) is None
    assert watch.ranks[1].step == 370 + 10
    assert hangs.find(370.0 + 64.0) is None
    found = hangs.find(370.0 + 66.0)  # the others fall silent
    assert found is not None


def test_a_file_that_cannot_grow_but_is_touched_is_life(
    run: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under a full disk the ranks go on, and their events wait in memory."""
    watch, hangs = hanging(run)
    clock, sizes = [0.0], [run.attempt(0).events(rank).stat().st_size for rank in range(2)]
    logs = [PatientEvents(run.attempt(0).events(rank), clock=lambda: clock[0]) for rank in range(2)]
    with logs[0], logs[1], monkeypatch.context() as patch:

        def full(descriptor: int, data: bytes) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        patch.setattr(os, "write", full)
        for second in range(10, 400, 30):
            clock[0] = float(second)
            for rank, log in enumerate(logs):
                log.write(steps(rank, 10 + second))
            watch.look(clock[0])
            assert hangs.find(clock[0]) is None
        assert [run.attempt(0).events(rank).stat().st_size for rank in range(2)] == sizes
        assert hangs.find(clock[0] + 64.0) is None
        assert hangs.find(clock[0] + 66.0) is not None  # now they are silent


def test_a_save_that_grows_is_no_hang(run: RunPaths) -> None:
    _, hangs = hanging(run)
    unfinished = run.checkpoints / ".weights-0001-0.5000.safetensors.attempt-0.abcd.tmp"
    unfinished.write_bytes(b"1")
    assert hangs.find(66.0) is None
    assert hangs.find(130.0) is None  # silent for 64 seconds since
    unfinished.write_bytes(b"12")
    assert hangs.find(132.0) is None
    # It grows no more: an fsync may take its time, but not for ever.
    assert hangs.find(132.0 + 300) is None
    assert hangs.find(132.0 + 306) is not None


def test_another_attempts_save_is_no_life(run: RunPaths) -> None:
    _, hangs = hanging(run)
    (run.checkpoints / ".weights-0001-0.5000.safetensors.attempt-1.abcd.tmp").write_bytes(b"1")
    assert hangs.find(66.0) is not None


@pytest.mark.parametrize("train", [True, False])
def test_stacks_are_asked_of_the_trainers_own_ranks_only(train: bool, run: RunPaths) -> None:
    script = (
        "import faulthandler, signal, time\n"
        "faulthandler.register(signal.SIGQUIT)\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    variables = {"CLUSTERSEG_RUN_DIR": str(run.root), "CLUSTERSEG_ATTEMPT": "0"}
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=(run.root / "log").open("wb"),
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        write(run, 1, started(1, process.pid))
        write(run, 0, started(0, os.getpid()))  # not of this attempt: never signalled
        watch = Watch(run.attempt(0), 2, begun=0.0)
        watch.look(0.0)
        assert HangWatch(run, 0, watch, LIMITS, train=train).ask_for_stacks() is train
        if train:
            wait_until(lambda: "most recent call" in (run.root / "log").read_text(), "its stack")
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        if process.stdout:
            process.stdout.close()
