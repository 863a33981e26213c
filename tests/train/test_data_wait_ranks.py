"""Two real ranks, one of which gets no data: FIFOs that nobody writes to stand for a mount that
hangs. A stop is agreed all the same, and the run goes on from there as if nothing had been."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from clusterseg.data import open_dataset
from clusterseg.data.order import epoch_order
from clusterseg.runs.checkpoint_file import read_verified
from clusterseg.runs.checkpoints import list_checkpoints
from clusterseg.runs.control import request_stop
from clusterseg.runs.records import Epoch, Phase, RankEnd, RankStart, Stop
from clusterseg.spec.model import DataSpec
from tests.train.runs import Run, job

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STEPS = 10  # 2 epochs of 5 steps, of 8 pictures each: rank 1 reads the second half of a step's
PATIENCE = 240  # seconds for something to happen on a busy machine
SOON = 60.0  # seconds from a request to the end of the ranks, on such a one
LONG = 20.0  # seconds in which ranks that heed a stop have long begun to end

RANK = """
import os, sys, time
from pathlib import Path
from clusterseg.train import batches, feeder, feeding, waiting
from clusterseg.train.rank import run
waiting._BEAT = 1.0
rank = int(os.environ["OMPI_COMM_WORLD_RANK"])
feed = feeding.feed
def late(*arguments, **keywords):  # rank 1 has the third of its batches when there is a file
    for number, element in enumerate(feed(*arguments, **keywords)):
        while number == 2 and rank == 1 and not Path(os.environ["GATE"]).exists():
            time.sleep(0.05)
        yield element
if "GATE" in os.environ:
    batches.feed = late
if "BLOCKING" in os.environ:  # as if the data came without a thread
    feeder.Feeder._wait = lambda self, leave: self._arrived.get()
if "DROPPING" in os.environ:  # a batch is used up by a step that did not count
    current = feeder.Feeder.current
    def dropping(self, leave):
        found = current(self, leave)
        self._current = feeder._NOTHING
        return found
    feeder.Feeder.current = dropping
sys.exit(run(Path(sys.argv[1])))
"""


@pytest.fixture(autouse=True)
def _ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.train.runs.RANK", RANK)


def two_ranks(root: Path, data: Path, kind: str = "mpi", **train: Any) -> Run:
    return Run(root, job(data, epochs=2, **train), ranks=2, communicator=kind)


def final(run: Run) -> bytes:
    newest = list_checkpoints(run.paths.checkpoints)[-1]
    assert newest.header.step == STEPS and newest.header.validated
    return bytes(read_verified(newest.path)[1])


def only(events: list[Any], kind: type) -> list[Any]:
    return [one for one in events if isinstance(one, kind)]


def wait_for(what: Callable[[], Any], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert process.poll() is None, "the ranks ended too early"
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.05)


class Blocked:
    """A picture of a copy of the data whose place a FIFO takes, until `mend`."""

    def __init__(self, data: Path, folder: Path, part: str, number: int) -> None:
        self.root = Path(shutil.copytree(data, folder))
        opened = open_dataset(DataSpec(format="camvid", root=str(self.root), size=(32, 48)), 255)
        samples = (opened.train if part == "train" else opened.validation).samples
        self._picture = samples[number].image
        self._kept = self._picture.with_suffix(".kept")
        self._picture.rename(self._kept)
        os.mkfifo(self._picture)

    def mend(self) -> None:
        self._kept.replace(self._picture)


def ended_within(run: Run, process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """The exit code; None if the ranks did not end, and were killed."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        for rank in (0, 1):
            with suppress(ProcessLookupError):
                os.kill(pid_of(run, rank), signal.SIGKILL)
        process.wait(PATIENCE)
        return None


def sizes(run: Run) -> list[int]:
    return [run.paths.attempt(run.attempt).events(rank).stat().st_size for rank in (0, 1)]


def pid_of(run: Run, rank: int) -> int:
    return only(run.events(rank), RankStart)[-1].pid


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, data: Path) -> bytes:
    """What a run that nobody disturbs ends with."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.train.runs.RANK", RANK)
        run = two_ranks(tmp_path_factory.mktemp("whole") / "run", data)
        assert run.run() == 0, run.log()
        return final(run)


def test_a_stop_that_only_the_rank_with_data_knows_of_comes_about(
    whole: bytes, data: Path, tmp_path: Path
) -> None:
    stopped_by_the_rank_with_data(two_ranks(tmp_path / "run", tmp_path / "data"), data, whole)


@pytest.mark.proof
@pytest.mark.horovod
def test_it_comes_about_over_horovod_and_in_the_middle_of_a_step_that_synchronises(
    data: Path, tmp_path: Path
) -> None:
    """Batch norms that reduce in the step: those of the step that came to nothing, too."""
    kind = {"kind": "horovod", "sync_batch_norm": True}
    undisturbed = two_ranks(tmp_path / "whole", data, **kind)
    assert undisturbed.run() == 0, undisturbed.log()
    run = two_ranks(tmp_path / "run", tmp_path / "data", **kind)
    stopped_by_the_rank_with_data(run, data, final(undisturbed))


def stopped_by_the_rank_with_data(run: Run, data: Path, whole: bytes) -> None:
    """Rank 1 waits for a picture of step 4; rank 0 waits for rank 1, and gets the signal."""
    picture = int(epoch_order(0, 0, 36)[3 * 8 + 5])
    blocked = Blocked(data, Path(run.spec["train"]["data"]["root"]), "train", picture)
    process = run.start()
    wait_for(lambda: run.windows(0) and run.windows(1), process)
    time.sleep(3)
    before = sizes(run)
    time.sleep(4)  # some beats
    assert sizes(run) == before  # which are no sign of life: nothing gets on
    os.kill(pid_of(run, 0), signal.SIGTERM)
    assert ended_within(run, process, SOON) == 75, run.log()
    for rank in (0, 1):
        stop, end = run.events(rank)[-2:]
        assert isinstance(stop, Stop) and isinstance(end, RankEnd)
        assert (stop.reason, stop.step, end.status, end.step) == ("SIGTERM", 3, "stopped", 3)
        windows = run.windows(rank)
        assert sum(one.count for one in windows) == windows[-1].step == 3
    waited = [run.windows(rank)[-1] for rank in (0, 1)]
    assert waited[1].wait_data > 5 > waited[0].wait_data
    assert waited[0].comm > 5  # it was the other one that was slow
    header = list_checkpoints(run.paths.checkpoints)[-1].header
    assert (header.step, header.samples_in_epoch, header.skipped) == (3, 24, [])
    blocked.mend()
    assert run.run() == 0, run.log()
    assert [one.step for one in only(run.events(0), RankStart)] == [3]
    assert sum(one.count for one in run.windows(1)) == STEPS - 3
    assert final(run) == whole


def test_a_stop_in_a_validation_that_one_rank_has_no_data_for(
    whole: bytes, data: Path, tmp_path: Path
) -> None:
    blocked = Blocked(data, tmp_path / "data", "val", 5)
    run = two_ranks(tmp_path / "run", blocked.root)
    process = run.start()
    wait_for(lambda: any(one.step == 5 for one in run.windows(1)), process)
    time.sleep(4)
    assert only(run.events(0), Epoch) == []
    request_stop(run.paths.stop_file(run.attempt), "time_limit")
    assert ended_within(run, process, SOON) == 75, run.log()
    for rank in (0, 1):
        stop, end = run.events(rank)[-2:]
        assert (stop.reason, stop.step, end.status) == ("time_limit", 5, "stopped")
        assert [one.name for one in only(run.events(rank), Phase)].count("validate") == 0
    header = list_checkpoints(run.paths.checkpoints)[-1].header
    assert (header.step, header.epoch, header.validated) == (5, 1, False)
    blocked.mend()
    assert run.run() == 0, run.log()
    assert [one.epoch for one in only(run.events(0), Epoch)] == [1, 2]
    assert final(run) == whole


@pytest.mark.parametrize(
    "twin",
    [
        False,
        pytest.param(True, id="twin: a void step uses up the batch", marks=pytest.mark.proof),
    ],
)
def test_data_that_come_late_are_trained_on_as_if_they_had_not(
    whole: bytes, data: Path, tmp_path: Path, *, twin: bool
) -> None:
    """Rank 0 keeps its batch over the steps that came to nothing."""
    gate, run = tmp_path / "gate", two_ranks(tmp_path / "run", data)
    process = run.start(GATE=str(gate), **({"DROPPING": "1"} if twin else {}))
    wait_for(lambda: run.windows(0) and run.windows(1), process)
    time.sleep(3.5)
    gate.touch()
    code = ended_within(run, process, 60 if twin else PATIENCE)
    if twin:
        assert code != 0 or final(run) != whole
        return
    assert code == 0, run.log()
    assert final(run) == whole
    assert all(sum(one.count for one in run.windows(rank)) == STEPS for rank in (0, 1))


@pytest.mark.proof
def test_twin_a_wait_that_can_not_be_left_heeds_no_stop(data: Path, tmp_path: Path) -> None:
    blocked = Blocked(data, tmp_path / "data", "train", int(epoch_order(0, 0, 36)[3 * 8 + 5]))
    run = two_ranks(tmp_path / "run", blocked.root)
    process = run.start(BLOCKING="1")
    wait_for(lambda: run.windows(0) and run.windows(1), process)
    time.sleep(3)
    for rank in (0, 1):
        os.kill(pid_of(run, rank), signal.SIGTERM)
    assert ended_within(run, process, LONG) is None
    assert list_checkpoints(run.paths.checkpoints) == []
