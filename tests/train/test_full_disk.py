"""A real disk that is full: the training goes on, what was saved before stays, and it ends in
order if the disk stays full."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clusterseg.runs.checkpoints import commit_checkpoint, list_checkpoints, verify
from clusterseg.runs.claims import claim_next
from clusterseg.runs.eventlog import EventWriter
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Checkpoint, Event
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

    def __init__(self, root: Path, patience: SavingPatience, keep_last: int = 1) -> None:
        import keras

        from clusterseg.train.communicator.solo import SoloCommunicator
        from clusterseg.train.saving import Saver

        root.mkdir()
        self.run = RunPaths(root)
        claim = claim_next(self.run, wanted(pid=1), World(process=False), QUICK)
        assert claim is not None
        self.variables = {"kernel": keras.Variable(np.zeros(10_000, np.float32))}
        state: Any = self
        self.saver = Saver(
            paths=self.run, claim=claim, spec=CheckpointSpec(keep_last=keep_last, keep_best=0),
            state=state, communicator=SoloCommunicator(), patience=patience, seed=0,
            events=EventWriter(self.run.attempt(0).events(0)), batching=ALONE, identity={},
            schedule={},
        )  # fmt: skip
        self.steps = 0
        self.save()

    def progress(self) -> Any:
        from clusterseg.train.progress import Progress

        return Progress(step=self.steps, step_in_epoch=self.steps)

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
