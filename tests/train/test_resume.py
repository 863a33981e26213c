"""Stopped or killed anywhere, any number of times: the final tensors are bit-equal to those of a
run that was never interrupted, and no step is lost or done twice that need not be."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clusterseg.runs.checkpoints import list_checkpoints
from clusterseg.runs.eventlog import EventWriter
from clusterseg.runs.records import Checkpoint, Event, Steps
from clusterseg.train import waiting
from clusterseg.train.failures import TrainingError
from clusterseg.train.progress import Progress
from clusterseg.train.saving_policy import SavingPatience
from clusterseg.train.state import TrainState
from tests.train.attempts import Attempts, Killed, KilledAt, StopAt
from tests.train.runs import Run, job

pytestmark = pytest.mark.slow

STEPS = 27  # 3 epochs of 9
# Before the first step, at every step, at every validation batch and after the last of them.
LOOKS = 1 + STEPS + 3 * (3 + 1)


@pytest.fixture(autouse=True)
def _agree_at_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a validation: by the clock, looks could not be counted."""
    monkeypatch.setattr(waiting, "CADENCE", 0.0)


@pytest.fixture
def attempts(data: Path, assembly, fresh, tmp_path: Path) -> Callable[..., Attempts]:
    def make(every: int = 1000, **keep: int) -> Attempts:
        spec = job(data)
        spec["checkpoint"] = {"every": {"steps": every}, **keep}
        return Attempts(Run(tmp_path / "run", spec), assembly, fresh)

    return make


@pytest.fixture(scope="session")
def reference(data: Path, assembly, fresh, tmp_path_factory) -> tuple[bytes, list[dict]]:
    """What a run that was never interrupted ends with."""
    whole = Attempts(Run(tmp_path_factory.mktemp("whole") / "run", job(data)), assembly, fresh)
    assert whole.attempt() is None
    assert whole.steps(0) == list(range(1, STEPS + 1))
    assert whole.run.windows(attempt=0)[0].count == 1  # the first window is the first step
    return whole.final()


def test_a_second_run_is_bit_equal_and_another_seed_is_not(attempts, reference, data: Path) -> None:
    again = attempts()
    assert again.attempt() is None
    assert again.final() == reference
    other = attempts()
    other.run.root = other.run.root.with_name("other")
    other.run.spec["train"]["seed"] = 1
    other.run.attempt, other.run.claims = -1, []
    other.assembly.identity["seed"] = "1"
    try:
        assert other.attempt() is None
    finally:
        other.assembly.identity["seed"] = "0"
    assert other.final()[0] != reference[0]


class Touched(EventWriter):
    """Notes how often its rank showed that it lives, before each event."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.touches = 0
        self.before: list[tuple[str, int]] = []

    def touch(self) -> None:
        self.touches += 1

    def write(self, event: Event) -> None:
        self.before.append((getattr(event, "name", ""), self.touches))
        super().write(event)


def test_a_validation_shows_life_batch_by_batch_also_where_an_attempt_begins_with_it(
    attempts,
) -> None:
    run = attempts()
    assert run.attempt(StopAt(1 + 9 + 1)) == "SIGUSR1"
    assert not list_checkpoints(run.run.paths.checkpoints)[-1].header.validated
    made: list[Touched] = []

    def events(path: Path) -> EventWriter:
        made.append(Touched(path))
        return made[0]

    assert run.attempt(StopAt(1 + 3), events=events) == "SIGUSR1"
    assert made[0].before[0] == ("validate", 3)


@pytest.mark.parametrize("seed", range(3))
def test_stopped_at_random_looks_it_ends_bit_equal(attempts, reference, seed: int) -> None:
    draw = random.Random(seed)
    run = attempts()
    done: list[int] = []
    while True:
        reason = run.attempt(StopAt(draw.randrange(1, LOOKS // 2)))
        done += run.steps(run.run.attempt)
        if reason is None:
            break
        assert reason == "SIGUSR1"
        assert list_checkpoints(run.run.paths.checkpoints)[-1].header.step == len(done)
    assert run.run.attempt >= 2  # it was stopped more than once
    assert done == list(range(1, STEPS + 1))  # none lost, none replayed
    assert run.epochs() == [1, 2, 3]
    assert run.final() == reference


def test_a_stop_after_the_last_validation_batch_wastes_none(attempts, reference) -> None:
    """Look 13: all is computed, so the epoch is done; the stop follows the next step."""
    run = attempts()
    assert run.attempt(StopAt(13)) == "SIGUSR1"
    header = list_checkpoints(run.run.paths.checkpoints)[-1].header
    # 9 if the machine is so busy that the next batch takes a second.
    assert header.epoch == 1 and header.step in (9, 10) and run.epochs() == [1]
    assert run.attempt() is None
    assert run.final() == reference


@pytest.mark.parametrize("look", [9, 10, 12])
def test_a_stop_around_an_epochs_end_and_in_validation(attempts, reference, look: int) -> None:
    """Looks 1 to 9 are the steps of the first epoch, 10 to 12 its validation batches."""
    run = attempts()
    assert run.attempt(StopAt(look)) == "SIGUSR1"
    header = list_checkpoints(run.run.paths.checkpoints)[-1].header
    assert (header.epoch, header.step, header.step_in_epoch) == (1, 9, 0)
    assert not header.validated
    assert run.epochs() == []
    assert run.attempt() is None
    assert run.steps(1) == list(range(10, STEPS + 1))
    assert run.epochs() == [1, 2, 3]
    assert run.final() == reference


def test_a_stop_before_the_first_step_saves_nothing_and_loses_nothing(attempts, reference) -> None:
    run = attempts()
    assert run.attempt(StopAt(0)) == "SIGUSR1"
    assert run.steps(0) == [] and list_checkpoints(run.run.paths.checkpoints) == []
    assert run.attempt(StopAt(7)) == "SIGUSR1"
    files = [one.name for one in list_checkpoints(run.run.paths.checkpoints)]
    assert run.attempt(StopAt(0)) == "SIGUSR1"  # just resumed: the file it came from stands
    assert [one.name for one in list_checkpoints(run.run.paths.checkpoints)] == files
    assert run.attempt() is None
    assert run.final() == reference


def test_a_finished_run_is_done_at_once(attempts, reference) -> None:
    run = attempts()
    assert run.attempt() is None
    assert run.attempt() is None
    assert run.steps(1) == [] and run.final() == reference


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_random_events_it_replays_from_the_last_save(
    attempts, reference, seed: int
) -> None:
    draw = random.Random(seed)
    run = attempts(every=4)
    while True:
        try:
            run.attempt(events=lambda path: KilledAt(path, draw.randrange(1, 25)))
        except Killed:
            claim = run.run.claims[-1]
            saved = [event.step for event in run.run.events() if isinstance(event, Checkpoint)]
            newest = list_checkpoints(run.run.paths.checkpoints)
            resume = newest[-1].header.step if newest else 0
            # The file may be there already when its event is not.
            assert resume >= max([claim.resume_step, *saved])
            assert (
                max([claim.resume_step, *run.steps(run.run.attempt)]) - resume <= 8
            )  # one interval, and one write
            continue
        break
    assert run.run.attempt >= 1
    for attempt, claim in enumerate(run.run.claims):
        steps = run.steps(attempt)
        assert steps == list(range(claim.resume_step + 1, claim.resume_step + 1 + len(steps)))
    assert run.final() == reference


def test_a_damaged_newest_checkpoint_costs_only_the_steps_since_the_one_before(
    attempts, reference
) -> None:
    run = attempts(every=4)
    with pytest.raises(Killed):
        run.attempt(events=lambda path: KilledAt(path, 14))
    *_, before, newest = list_checkpoints(run.run.paths.checkpoints)
    content = bytearray(newest.path.read_bytes())
    content[-100] ^= 4
    newest.path.write_bytes(content)
    assert run.attempt() is None
    assert run.run.claims[-1].resume_step == before.header.step
    assert run.steps(1)[0] == before.header.step + 1
    assert (run.run.paths.rejected / newest.name).exists()
    assert run.final() == reference


def test_saves_come_by_steps_and_are_pruned_to_the_rules(attempts) -> None:
    run = attempts(every=5, keep_best=1, keep_last=2)
    assert run.attempt() is None
    saved = [event.step for event in run.run.events() if isinstance(event, Checkpoint)]
    assert saved == [5, 9, 10, 15, 18, 20, 25, 27]
    left = {one.header.step for one in list_checkpoints(run.run.paths.checkpoints)}
    best = max((one for one in run.final()[1]), key=lambda entry: entry["val_accuracy"])["step"]
    assert left == {25, 27, best}
    assert all(event.bytes > 700_000 for event in run.run.events() if isinstance(event, Checkpoint))


# The negative twins: each leaves one piece of state out, and must be noticed.
def _without(part: str) -> Callable[[TrainState, str, Any, memoryview], None]:
    load = TrainState.load

    def partial(self: TrainState, name: str, layout: Any, data: memoryview) -> None:
        kept = {key: np.array(one.numpy()) for key, one in self.variables.items() if part in key}
        assert kept
        load(self, name, layout, data)
        for key, value in kept.items():
            self.variables[key].assign(value)

    return partial


@pytest.mark.parametrize("part", ["optimizer/momentums", "moving_", "kernel", "classifier_0"])
def test_state_that_is_left_out_is_noticed(
    attempts, reference, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    run = attempts()
    assert run.attempt(StopAt(15)) == "SIGUSR1"
    monkeypatch.setattr(TrainState, "load", _without(part))
    try:
        run.attempt()
    except TrainingError:
        return  # rubbish can make the loss overflow: noticed as well
    assert run.final()[0] != reference[0]


@pytest.mark.parametrize("lost", [{"samples_in_epoch": 0}, {"step": 0}])
def test_a_position_that_is_lost_is_noticed(
    attempts, reference, monkeypatch: pytest.MonkeyPatch, lost: dict[str, int]
) -> None:
    run = attempts()
    assert run.attempt(StopAt(15)) == "SIGUSR1"
    original = Progress.from_header.__func__  # type: ignore[attr-defined]

    def forgetful(cls: type[Progress], header: Any) -> Progress:
        progress = original(cls, header)
        for name, value in lost.items():
            setattr(progress, name, value)
        return progress

    monkeypatch.setattr(Progress, "from_header", classmethod(forgetful))
    assert run.attempt() is None
    assert run.final()[0] != reference[0]


def test_a_full_disk_ends_the_attempt_with_its_name_and_the_old_file_intact(
    attempts, reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = attempts(every=3)
    write = os.write

    def full(descriptor: int, data: bytes) -> int:
        where = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        if "-step-000000006" in where:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(TrainingError, match=r"^disk full: saving step 6: No space") as caught:
        run.attempt(patience=SavingPatience(failures=1, least=0))  # how it goes on: test_full_disk
    assert caught.value.agreed
    monkeypatch.undo()
    assert [one.name for one in run.run.paths.checkpoints.iterdir()] == [
        "weights-0000-0.0000-step-000000003.safetensors"
    ]
    assert run.attempt() is None
    assert run.final() == reference


def test_weights_that_are_not_finite_are_never_saved(attempts) -> None:
    run = attempts(every=3)

    class Poisoned(EventWriter):
        def write(self, event) -> None:
            super().write(event)
            if isinstance(event, Steps) and event.step == 6:  # its save follows
                moment = run.assembly.state.variables["optimizer/momentums/classifier_logits/bias"]
                moment.assign(moment * float("nan"))

    # Told by whichever is quicker: the writer, or the check of the first step that meets it,
    # which may find the weights that this step made before the momentum.
    with pytest.raises(
        TrainingError, match=r"^nan: ((optimizer/momentums|model)/\S+|the (loss|gradients))"
    ):
        run.attempt(events=Poisoned)
    assert [one.header.step for one in list_checkpoints(run.run.paths.checkpoints)] == [3]


def test_a_superseded_attempt_saves_nothing_more(attempts) -> None:
    run = attempts(every=3)

    class Overtaken(EventWriter):
        def write(self, event) -> None:
            super().write(event)
            if isinstance(event, Checkpoint) and event.step == 6:
                run.run.claim()

    with pytest.raises(TrainingError, match="attempt 1 was claimed"):
        run.attempt(events=Overtaken)
    assert [one.header.step for one in list_checkpoints(run.run.paths.checkpoints)] == [3, 6]


def test_a_checkpoint_of_another_job_is_refused_with_every_difference(
    attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = attempts()
    assert run.attempt(StopAt(5)) == "SIGUSR1"
    monkeypatch.setitem(run.assembly.identity, "model.classes", "19")
    monkeypatch.setitem(run.assembly.identity, "optimizer.name", "adam")
    with pytest.raises(TrainingError) as caught:
        run.attempt()
    for difference in (
        "model.classes is 11 there, 19 now",
        "optimizer.name is sgd there, adam now",
    ):
        assert difference in caught.value.message
