"""Real ranks under the real mpirun: trained, stopped by each way, killed, resumed.

Few runs with many assertions each: every start of a rank loads TensorFlow.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clusterseg.runs.checkpoint_file import read_verified
from clusterseg.runs.checkpoints import list_checkpoints
from clusterseg.runs.control import request_stop
from clusterseg.runs.records import (
    Checkpoint,
    Epoch,
    Phase,
    RankEnd,
    RankStart,
    Stop,
)
from tests.train.disks import fill
from tests.train.runs import Run, job

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STEPS = 60  # 12 epochs of 5: long enough to be stopped in, three times
PATIENCE = 240  # seconds for something to happen on a busy machine


def two_ranks(root: Path, data: Path, communicator: str) -> Run:
    spec = job(data, epochs=12)
    spec["checkpoint"] = {"every": {"steps": 2}, "keep_last": 3}
    return Run(root, spec, ranks=2, communicator=communicator)


def tensors(run: Run) -> bytes:
    newest = list_checkpoints(run.paths.checkpoints)[-1]
    assert newest.header.step == STEPS
    return bytes(read_verified(newest.path)[1])


def steps_of(run: Run, rank: int, attempt: int) -> list[int]:
    return [
        step
        for window in run.windows(rank, attempt)
        for step in range(window.step - window.count + 1, window.step + 1)
    ]


def wait_for(what: Callable[[], Any], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert process.poll() is None, "the ranks ended too early"
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)


def pid_of(run: Run, rank: int) -> int:
    starts = [one for one in run.events(rank) if isinstance(one, RankStart)]
    return starts[-1].pid


def only(events: list[Any], kind: type) -> list[Any]:
    return [one for one in events if isinstance(one, kind)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Run:
    """Two ranks over mpi4py that nobody disturbs."""
    run = two_ranks(tmp_path_factory.mktemp("whole") / "run", data, "mpi")
    assert run.run() == 0, run.log()
    return run


def test_two_ranks_train_and_say_so_in_their_events(whole: Run) -> None:
    for rank in (0, 1):
        events = whole.events(rank)
        first, last = events[0], events[-1]
        assert isinstance(first, RankStart) and isinstance(last, RankEnd)
        assert (first.rank, first.world_size, first.local_rank) == (rank, 2, rank)
        assert set(first.cpus) <= os.sched_getaffinity(0) and first.resumed_from is None
        assert (last.status, last.step, last.error) == ("done", STEPS, None)
        assert {one.name for one in only(events, Phase)} == {
            "startup", "restore", "validate", "save",
        }  # fmt: skip
        startup, restore = only(events, Phase)[:2]
        assert list(startup.parts) == ["python", "connect", "tensorflow", "data", "model"]
        # There was no checkpoint, and nothing was read.
        assert list(restore.parts) == ["wait", "broadcast"]
        for phase in (startup, restore):
            assert sum(phase.parts.values()) == pytest.approx(phase.seconds, rel=0.05, abs=0.1)
        assert startup.parts["tensorflow"] > 0.5
        assert last.peak_bytes is not None and 100 << 20 < last.peak_bytes < 8 << 30
        windows = whole.windows(rank)
        assert windows[0].count == 1
        assert steps_of(whole, rank, 0) == list(range(1, STEPS + 1))
        assert all(one.seconds > 0 and 0 <= one.comm <= one.seconds for one in windows)
        assert sum(one.comm for one in windows) > 0
    cuts = [[one.step for one in whole.windows(rank)] for rank in (0, 1)]
    assert cuts[0] == cuts[1]
    assert set(cuts[0]) >= set(range(5, STEPS + 1, 5)) | set(range(2, STEPS + 1, 2))
    # 36 pictures an epoch, 8 a step: the padding of the last step counts on neither rank.
    images = [sum(one.images for one in whole.windows(rank)) for rank in (0, 1)]
    assert sum(images) == 12 * 36
    epochs = only(whole.events(0), Epoch)
    assert [one.epoch for one in epochs] == list(range(1, 13))
    assert all(one.val_loss is not None for one in epochs)
    assert only(whole.events(1), Epoch) == only(whole.events(1), Checkpoint) == []
    assert epochs[-1].val_accuracy is not None and epochs[0].loss is not None
    assert epochs[-1].loss is not None and epochs[-1].loss < epochs[0].loss
    assert whole.paths.attempt(0).log(1).stat().st_mode & 0o777 == 0o600


def test_killed_and_stopped_by_each_way_they_end_bit_equal(
    whole: Run, data: Path, tmp_path: Path
) -> None:
    run = two_ranks(tmp_path / "run", data, "mpi")

    process = run.start()  # attempt 0: rank 1 is killed after the first save
    wait_for(lambda: only(run.events(0), Checkpoint), process)
    os.kill(pid_of(run, 1), signal.SIGKILL)
    assert process.wait(PATIENCE) != 0  # and rank 0 does not wait for ever
    assert only(run.events(1), RankEnd) == []

    ways: list[tuple[str, Callable[[Run], None]]] = [
        ("SIGUSR1", lambda run: os.kill(pid_of(run, 1), signal.SIGUSR1)),
        ("time_limit", lambda run: request_stop(run.paths.stop_file(run.attempt), "time_limit")),
    ]
    for reason, ask in ways:
        process = run.start()
        wait_for(lambda: run.windows(0), process)
        ask(run)
        assert process.wait(PATIENCE) == 75, run.log()
        resumed = run.claims[-1].resume_step
        ends = [run.events(rank)[-2:] for rank in (0, 1)]
        for stop, end in ends:
            assert isinstance(stop, Stop) and isinstance(end, RankEnd)
            assert (stop.reason, end.status) == (reason, "stopped")
            # Both after the same step, with all that was done saved.
            assert stop.step == end.step == ends[0][0].step > resumed
        saved = list_checkpoints(run.paths.checkpoints)[-1].header
        assert (saved.step, saved.attempt) == (ends[0][0].step, run.attempt)
        for rank in (0, 1):
            assert steps_of(run, rank, run.attempt) == list(range(resumed + 1, saved.step + 1))
            start = only(run.events(rank), RankStart)[0]
            assert (start.step, start.resumed_from) == (resumed, run.claims[-1].resume_from)
            restore = next(one for one in only(run.events(rank), Phase) if one.name == "restore")
            parts = ["read", "hash", "load"] if rank == 0 else []
            assert list(restore.parts) == [*parts, "wait", "broadcast"]

    stopped_at = list_checkpoints(run.paths.checkpoints)[-1].header.step
    assert run.run() == 0, run.log()
    assert steps_of(run, 1, run.attempt) == list(range(stopped_at + 1, STEPS + 1))
    assert tensors(run) == tensors(whole)


@pytest.mark.horovod
def test_horovod_stopped_by_a_sigterm_and_resumed_ends_bit_equal_to_mpi(
    whole: Run, data: Path, tmp_path: Path
) -> None:
    """With two ranks a sum has one order only: the two libraries must agree bit for bit."""
    run = two_ranks(tmp_path / "run", data, "horovod")
    process = run.start()
    wait_for(lambda: run.windows(1), process)
    os.kill(pid_of(run, 0), signal.SIGTERM)
    assert process.wait(PATIENCE) == 75, run.log()
    (stop,) = only(run.events(1), Stop)
    assert stop.reason == "SIGTERM" and 0 < stop.step < STEPS
    assert run.run() == 0, run.log()
    assert steps_of(run, 0, 1) == list(range(stop.step + 1, STEPS + 1))
    assert sum(one.comm for one in run.windows(0)) > 0
    assert tensors(run) == tensors(whole)


SPOILED = """
import os, sys
from pathlib import Path
from clusterseg.train import wishes
from clusterseg.train.communicator.mpi import MpiCommunicator
from clusterseg.train.rank import run
if "CHECK_SECONDS" in os.environ:
    from clusterseg.train import loop
    loop._CHECK_SECONDS = float(os.environ["CHECK_SECONDS"])
reduce = MpiCommunicator._sum_float32
def alone(self, vector):  # every rank trains alone; only what they want of each other is heard
    total = reduce(self, vector)
    total[: -wishes.COUNT] = vector[: -wishes.COUNT]
    return total
MpiCommunicator._sum_float32 = alone
sys.exit(run(Path(sys.argv[1])))
"""


@pytest.mark.parametrize(
    ("every", "environment", "when"),
    [
        (1000, {}, "after epoch 1"),
        (2, {}, "after step 2"),  # before the save
        (1000, {"CHECK_SECONDS": "0"}, "after step 1"),  # by the clock of rank 0
    ],
)
def test_ranks_that_do_not_reduce_are_found_out(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    every: int,
    environment: dict[str, str],
    when: str,
) -> None:
    """The negative twin of equal weights."""
    run = two_ranks(tmp_path / "run", data, "mpi")
    run.spec["checkpoint"] = {"every": {"steps": every}}
    monkeypatch.setattr("tests.train.runs.RANK", SPOILED)
    assert run.run(**environment) == 1
    for rank in (0, 1):
        end = run.events(rank)[-1]
        assert isinstance(end, RankEnd) and end.status == "failed"
        assert end.error is not None
        assert end.error.startswith(f"diverged: the weights differ between ranks {when}")
        assert "rank 1 from rank 0" in run.log(rank)
    assert list_checkpoints(run.paths.checkpoints) == []  # nothing of it was saved


def test_a_rank_that_fails_alone_ends_the_others_and_leaves_its_reason(
    data: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "data"
    subprocess.run(["cp", "-r", str(data), str(copy)], check=True)
    broken = sorted((copy / "train").glob("*"))[7]
    broken.write_bytes(b"no picture")
    run = two_ranks(tmp_path / "run", copy, "mpi")
    assert run.run() == 1
    ends = [one for rank in (0, 1) for one in only(run.events(rank), RankEnd)]
    assert [one.status for one in ends] == ["failed"]
    assert ends[0].error is not None and broken.name in ends[0].error
    log = run.log(ends[0].rank)
    assert f"{broken}: not readable as a picture" in log and "Traceback" not in log


def test_a_set_smaller_than_one_global_batch_is_trained_on_and_told(
    data: Path, tmp_path: Path
) -> None:
    run = Run(tmp_path / "run", job(data, epochs=1, batch_size=40))
    assert run.run() == 0, run.log()
    assert "warning: 36 samples are fewer than one global batch of 40 (1 rank × 40)" in run.log()
    assert [one.images for one in run.windows()] == [36]


IMPATIENT = """
import sys
from functools import partial
from pathlib import Path
from clusterseg.train import saving
from clusterseg.train.rank import run
from clusterseg.train.saving_policy import SavingPatience
saving.SavingPatience = partial(
    SavingPatience, delays=(0.05,), failures=3, least=0.2, reserve=0, hurried_delay=0.05
)
sys.exit(run(Path(sys.argv[1])))
"""


@pytest.mark.proof
def test_a_disk_that_stays_full_ends_both_ranks_alike_and_nothing_is_lost(
    whole: Run, data: Path, small_disk: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = small_disk(8 << 20)
    run = two_ranks(disk / "run", data, "mpi")
    monkeypatch.setattr("tests.train.runs.RANK", IMPATIENT)
    process = run.start()
    wait_for(lambda: only(run.events(0), Checkpoint), process)
    filler = fill(disk, left=400_000)
    assert process.wait(PATIENCE) == 1
    ends = [run.events(rank)[-1] for rank in (0, 1)]
    assert all(isinstance(one, RankEnd) and one.status == "failed" for one in ends)
    assert ends[0].error == ends[1].error and ends[0].error.startswith("disk full: saving step ")
    assert ends[0].step == ends[1].step
    assert "the training goes on" in run.log(0)
    names = {one.name for one in run.paths.checkpoints.iterdir()}
    good = list_checkpoints(run.paths.checkpoints)
    assert names == {one.name for one in good} and good
    filler.unlink()
    assert run.run() == 0, run.log()
    assert run.claims[-1].resume_step == good[-1].header.step
    assert tensors(run) == tensors(whole)
