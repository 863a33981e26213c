"""A real disk that is full: the training goes on, what was saved before stays, and it ends in
order if the disk stays full."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clusterseg.runs.checkpoint_file import read_verified
from clusterseg.runs.checkpoints import commit_checkpoint, list_checkpoints, verify
from clusterseg.runs.claims import claim_next
from clusterseg.runs.eventlog import EventWriter
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Checkpoint, Epoch, Event
from clusterseg.runs.space import Space
from clusterseg.spec.model import CheckpointSpec
from clusterseg.train.saving_policy import SavingPatience
from tests.runs.claiming import QUICK, World, wanted
from tests.train.attempts import Attempts
from tests.train.batchings import ALONE
from tests.train.disks import FILLER, fill
from tests.train.runs import Run, job

pytestmark = pytest.mark.slow

PATIENCE = 60.0
BRIEF = SavingPatience(delays=(0.05,), failures=3, least=0.2, hurried_delay=0.05, reserve=0)
RASH = SavingPatience(delays=(0.05,), failures=1, least=0.0, hurried_tries=1, reserve=0)
Disk = Callable[..., Path]


class Training:
    """As much of a training as saves: a state of 40 kB whose every step changes it."""

    def __init__(
        self, root: Path, patience: SavingPatience, keep_last: int = 1, keep_best: int = 0
    ) -> None:
        import keras

        from clusterseg.train.communicator.solo import SoloCommunicator
        from clusterseg.train.saving import Saver

        root.mkdir()
        self.run = RunPaths(root)
        claim = claim_next(self.run, wanted(pid=1), World(process=False), QUICK)
        assert claim is not None
        self.variables = {"kernel": keras.Variable(np.zeros(10_000, np.float32))}
        state: Any = self
        spec = CheckpointSpec(keep_last=keep_last, keep_best=keep_best)
        self.saver = Saver(
            paths=self.run, claim=claim, spec=spec,
            state=state, communicator=SoloCommunicator(), patience=patience, seed=0,
            events=EventWriter(self.run.attempt(0).events(0)), batching=ALONE, identity={},
            schedule={},
        )  # fmt: skip
        self.steps = 0
        self.history: list[Any] = []
        self.save()

    def progress(self) -> Any:
        from clusterseg.train.progress import Progress

        return Progress(
            epoch=len(self.history), step=self.steps, step_in_epoch=self.steps,
            history=list(self.history),
        )  # fmt: skip

    def end_epoch(self, accuracy: float) -> None:
        """After one step more."""
        self.step()
        progress = self.progress()
        progress.epoch, progress.step_in_epoch, progress.validated = progress.epoch + 1, 0, False
        progress.complete_epoch(1.0, accuracy, 0.5)
        self.history = progress.history
        self.saver.begin(progress)

    def save(self) -> None:
        self.step()
        self.saver.begin(self.progress())
        self.saver.settle()

    def step(self) -> bool:
        """One step, and what the loop asks the saver for at it; whether it gives up."""
        gives_up: bool = self.saver.poll()
        due = self.saver.due()
        self.steps += 1
        self.variables["kernel"].assign_add(np.ones(10_000, np.float32))
        if due:
            self.saver.begin(self.progress())
        return gives_up

    def until(self, what: Callable[[], bool]) -> None:
        """Steps on until that is so; fails if the saver gives up meanwhile."""
        deadline = time.monotonic() + PATIENCE
        while not what():
            assert not self.step(), "gave up"
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def saved(self) -> list[int]:
        """The steps whose files are there, each of them verified; nothing else is there."""
        found = list_checkpoints(self.run.checkpoints)
        for one in found:
            verify(one.path)
        assert len(found) == len(os.listdir(self.run.checkpoints))  # noqa: PTH208
        return [one.header.step for one in found]


@pytest.fixture(params=["foreseen", "met"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A full disk is foreseen, or met while writing (a quota, or another writer)."""
    from clusterseg.train import store

    if request.param == "met":
        monkeypatch.setattr(store, "space_in", lambda folder: Space(None, None))
    return str(request.param)


def test_it_goes_on_and_saves_again_when_there_is_room(
    small_disk: Disk, way: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from clusterseg.train import store

    disk = small_disk(1 << 20)
    training = Training(disk / "run", BRIEF)
    assert training.saved() == [1]
    filler = fill(disk, left=20_000)
    written = []
    monkeypatch.setattr(
        store,
        "commit_checkpoint",
        lambda *args, **kwargs: (written.append(1), commit_checkpoint(*args, **kwargs))[1],
    )
    training.save()
    failed_at = training.steps
    assert training.saved() == [1]  # the only one: it was not pruned to make room
    assert written == ([] if way == "foreseen" else [1])  # not a byte, where it is known before
    said = capfd.readouterr().err
    assert "warning: disk full: saving step 2" in said and "the training goes on" in said
    assert (("foreseen: it needs" in said), ("No space left" in said)) == (
        way == "foreseen", way != "foreseen",
    )  # fmt: skip
    filler.unlink()
    training.until(lambda: training.saved() != [1])
    (now,) = training.saved()
    assert now > failed_at  # of the state by then, without anybody who asked for it
    training.saver.settle()
    assert "is saved, after" in capfd.readouterr().err
    assert not training.step()


def test_it_gives_up_when_the_disk_stays_full(small_disk: Disk, way: str) -> None:
    from clusterseg.train.failures import TrainingError

    disk = small_disk(1 << 20)
    training = Training(disk / "run", BRIEF)
    fill(disk, left=20_000)
    began = time.monotonic()
    training.save()
    with pytest.raises(AssertionError, match="gave up"):
        training.until(lambda: False)
    assert time.monotonic() - began >= BRIEF.least
    with pytest.raises(TrainingError, match=r"^disk full: saving step \d+: ") as caught:
        training.saver.give_up()
    assert caught.value.agreed
    assert training.saved() == [1]


def test_an_epochs_end_is_saved_as_it_was_when_there_is_room_again(
    small_disk: Disk, way: str
) -> None:
    disk = small_disk(1 << 20)
    training = Training(disk / "run", BRIEF, keep_best=1)
    filler = fill(disk, left=20_000)
    training.end_epoch(0.75)
    end = training.steps
    training.saver.settle()
    assert training.saved() == [1]
    for _ in range(5):
        training.step()
    filler.unlink()
    training.until(lambda: len(training.saved()) == 2 and training.saved()[0] != 1)
    best, newest = list_checkpoints(training.run.checkpoints)
    assert (best.name, best.header.step) == ("weights-0001-0.7500.safetensors", end)
    layout, tensors = read_verified(best.path)
    assert np.all(np.frombuffer(tensors, np.float32) == end)  # not the weights of later steps
    assert layout.header.history == training.history and best.header.validated
    assert newest.header.step > end + 5  # what is gone on from is the state of now
    training.saver.settle()
    assert not training.step()


def test_the_next_epochs_end_takes_its_place_if_there_is_no_room_till_then(
    small_disk: Disk, way: str, capfd: pytest.CaptureFixture[str]
) -> None:
    disk = small_disk(1 << 20)
    slow = replace(BRIEF, delays=(100.0,), failures=10)
    training = Training(disk / "run", slow, keep_best=3)
    filler = fill(disk, left=20_000)
    for accuracy in (0.5, 0.75):
        training.end_epoch(accuracy)
        training.saver.settle()
    assert training.saved() == [1]
    assert "weights-0001-0.5000.safetensors could not be saved" in capfd.readouterr().err
    filler.unlink()
    training.end_epoch(0.25)  # there is room for it, and for the one before
    training.saver.settle()
    found = [one.name for one in list_checkpoints(training.run.checkpoints)]
    assert found[-2:] == ["weights-0002-0.7500.safetensors", "weights-0003-0.2500.safetensors"]
    assert "could not be saved" not in capfd.readouterr().err


def test_a_stop_saves_where_the_run_is_and_lets_go_of_an_epochs_end(
    small_disk: Disk, way: str, capfd: pytest.CaptureFixture[str]
) -> None:
    disk = small_disk(1 << 20)
    training = Training(disk / "run", replace(BRIEF, delays=(100.0,)), keep_best=1)
    filler = fill(disk, left=20_000)
    training.end_epoch(0.75)
    training.saver.settle()
    training.step()
    filler.unlink()
    training.saver.save(training.progress())
    (newest,) = list_checkpoints(training.run.checkpoints)
    assert newest.header.step == training.steps
    assert newest.header.history == training.history and newest.header.val_accuracy == 0.75
    assert "missing among the best" in capfd.readouterr().err


def test_a_policy_that_gives_up_at_once_would_not_go_on(small_disk: Disk, way: str) -> None:
    """The negative twin of going on."""
    disk = small_disk(1 << 20)
    training = Training(disk / "run", RASH)
    filler = fill(disk, left=20_000)
    training.save()
    filler.unlink()
    with pytest.raises(AssertionError, match="gave up"):
        training.until(lambda: training.saved() != [1])


def test_at_a_stop_it_tries_again_for_a_moment(small_disk: Disk, way: str) -> None:
    disk = small_disk(1 << 20)
    training = Training(disk / "run", BRIEF)
    filler = fill(disk, left=20_000)
    training.step()
    room = threading.Timer(0.07, filler.unlink)
    room.start()
    training.saver.save(training.progress())
    room.join()
    assert training.saved() == [2]


@pytest.mark.parametrize("left", [None, 20.0])
def test_a_file_server_that_is_away_costs_no_steps_if_the_stop_has_time(
    left: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For six tries; three are made where nobody knows how long there is."""
    from clusterseg.train import store
    from clusterseg.train.failures import TrainingError

    training = Training(tmp_path / "run", replace(BRIEF, later_delay=0.05))
    tries = []

    def away(*args: Any, **kwargs: Any) -> Any:
        tries.append(1)
        if len(tries) <= 5:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return commit_checkpoint(*args, **kwargs)

    monkeypatch.setattr(store, "commit_checkpoint", away)
    training.step()
    if left is None:
        with pytest.raises(TrainingError, match=r"^i/o error: saving step 2"):
            training.saver.save(training.progress())
        assert len(tries) == 3 and training.saved() == [1]
    else:
        training.saver.save(training.progress(), deadline=lambda: time.time() + left)
        assert training.saved() == [2]


def test_at_a_stop_it_ends_with_the_reason(small_disk: Disk, way: str) -> None:
    from clusterseg.train.failures import TrainingError

    disk = small_disk(1 << 20)
    training = Training(disk / "run", BRIEF)
    fill(disk, left=20_000)
    training.step()
    with pytest.raises(TrainingError, match=r"^disk full: saving step 2: ") as caught:
        training.saver.save(training.progress())
    assert caught.value.agreed
    assert training.saved() == [1]


def test_no_inode_is_a_full_disk_too(small_disk: Disk, way: str) -> None:
    disk = small_disk(1 << 20, inodes=40)
    training = Training(disk / "run", BRIEF)
    fillers = []
    try:
        while True:
            (disk / f"empty-{len(fillers)}").touch()
            fillers.append(disk / f"empty-{len(fillers)}")
    except OSError as error:
        assert error.errno == errno.ENOSPC
    training.save()
    assert training.saved() == [1]
    for filler in fillers:
        filler.unlink()
    training.until(lambda: training.saved() != [1])


def test_room_that_is_short_is_told_at_the_start(
    small_disk: Disk, capfd: pytest.CaptureFixture[str]
) -> None:
    disk = small_disk(1 << 20)
    fill(disk, left=70_000)
    training = Training(disk / "run", BRIEF)
    assert training.saved() == [1]
    assert "the next checkpoints may not fit: for two it needs" in capfd.readouterr().err


class Somebody(EventWriter):
    """Somebody else fills the disk after the save of step 3, and may make room at step 8."""

    tidies = True

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._disk = path.parents[4]  # disk/run/attempts/000/ranks/00000.jsonl

    def write(self, event: Event) -> None:
        super().write(event)
        step = getattr(event, "step", 0)
        if isinstance(event, Checkpoint) and step == 3:
            fill(self._disk, left=300_000)
        elif step >= 8 and self.tidies:
            (self._disk / FILLER).unlink(missing_ok=True)


class AtAnEpochsEnd(Somebody):
    """Somebody else fills the disk at the end of the first epoch, step 9, until step 12."""

    def write(self, event: Event) -> None:
        EventWriter.write(self, event)
        if isinstance(event, Epoch) and event.epoch == 1:
            fill(self._disk, left=300_000)
        elif getattr(event, "step", 0) >= 12:
            (self._disk / FILLER).unlink(missing_ok=True)


def test_the_best_epochs_are_all_there_after_a_full_disk(
    small_disk: Disk, data: Path, assembly, fresh, tmp_path: Path
) -> None:
    whole = Attempts(Run(tmp_path / "whole", job(data)), assembly, fresh)
    assert whole.attempt() is None
    disk = small_disk(6 << 20)
    spec = job(data)
    spec["checkpoint"] = {"every": {"steps": 3}, "keep_last": 1, "keep_best": 3}
    run = Attempts(Run(disk / "run", spec), assembly, fresh)
    patience = replace(BRIEF, delays=(100.0,), failures=10)  # with the saves that are due anyway
    assert run.attempt(events=AtAnEpochsEnd, patience=patience) is None
    saved = [event.step for event in run.run.events() if isinstance(event, Checkpoint)]
    assert saved[:3] == [3, 6, 9] and saved == sorted(saved) and len(saved) > 7
    kept = list_checkpoints(run.run.paths.checkpoints)
    assert [one.header.step for one in kept] == [9, 18, 27]
    assert run.final() == whole.final()
    best = kept[-1].header.best
    assert best is not None and best["file"] in {one.name for one in kept}


def test_a_training_through_a_full_disk_ends_bit_equal(
    small_disk: Disk, data: Path, assembly, fresh, tmp_path: Path
) -> None:
    """Full for a while; then, in another run, until it gives up: resumed when there is room."""
    from clusterseg.train.failures import TrainingError

    whole = Attempts(Run(tmp_path / "whole", job(data)), assembly, fresh)
    assert whole.attempt() is None

    disk = small_disk(6 << 20)
    spec = job(data)
    spec["checkpoint"] = {"every": {"steps": 3}, "keep_last": 1, "keep_best": 0}
    run = Attempts(Run(disk / "run", spec), assembly, fresh)
    assert run.attempt(events=Somebody, patience=BRIEF) is None
    saved = [event.step for event in run.run.events() if isinstance(event, Checkpoint)]
    assert saved[0] == 3 and 6 not in saved and saved[-1] == 27
    assert run.steps(0) == list(range(1, 28))
    assert run.final() == whole.final()

    run = Attempts(Run(disk / "other", spec), assembly, fresh)
    Somebody.tidies = False
    try:
        with pytest.raises(TrainingError, match=r"^disk full: saving step \d+: foreseen") as caught:
            run.attempt(events=Somebody, patience=BRIEF)
    finally:
        Somebody.tidies = True
    assert caught.value.agreed
    (left,) = os.listdir(run.run.paths.checkpoints)  # noqa: PTH208
    assert left == "weights-0000-0.0000-step-000000003.safetensors"
    (disk / FILLER).unlink()
    assert run.attempt() is None
    assert run.steps(1)[0] == 4
    assert run.final() == whole.final()
