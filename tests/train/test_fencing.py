"""The trainer's saver when the run has become another's: what it writes, deletes, and leaves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clusterseg.runs.checkpoints import list_checkpoints
from clusterseg.runs.claims import claim_next
from clusterseg.runs.control import StopReason, request_stop
from clusterseg.runs.eventlog import EventWriter
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Claim
from clusterseg.spec.model import CheckpointSpec
from tests.runs.claiming import QUICK, World, wanted
from tests.train.batchings import ALONE

pytestmark = pytest.mark.slow


class State:
    """As much of a TrainState as a save asks for."""

    def __init__(self) -> None:
        import keras

        self.variables = {"x": keras.Variable([1.0, 2.0], name="x")}


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    (tmp_path / "run").mkdir()
    return RunPaths(tmp_path / "run")


def claim(run: RunPaths, pid: int) -> Claim:
    found = claim_next(run, wanted(pid=pid), World(process=False), QUICK)
    assert found is not None
    return found


@pytest.fixture
def saver(run: RunPaths) -> Callable[..., Callable[[int], None]]:
    """saver(claim, keep_last): a function that saves a step as the holder of that claim."""
    from clusterseg.train.communicator.solo import SoloCommunicator
    from clusterseg.train.progress import Progress
    from clusterseg.train.saving import Saver

    def make(holder: Claim, keep_last: int) -> Callable[[int], None]:
        events: Any = EventWriter(run.attempt(holder.attempt).events(0))
        state: Any = State()
        one = Saver(
            paths=run, claim=holder, spec=CheckpointSpec(keep_last=keep_last, keep_best=0),
            state=state, communicator=SoloCommunicator(), events=events, seed=0,
            batching=ALONE, identity={}, schedule={},
        )  # fmt: skip
        at = Progress(step_in_epoch=1)
        return lambda step: one.save(dataclasses.replace(at, step=step, step_in_epoch=step))

    return make


def steps(run: RunPaths) -> list[tuple[int, int]]:
    """(attempt, step) of what is there."""
    return [(one.header.attempt, one.header.step) for one in list_checkpoints(run.checkpoints)]


def test_who_was_asked_to_make_way_saves_and_deletes_nothing(run: RunPaths, saver) -> None:
    holder = claim(run, 1)
    save = saver(holder, keep_last=1)
    save(10)
    save(20)
    assert steps(run) == [(0, 20)]
    request_stop(run.stop_file(0), StopReason.SUPERSEDED)
    save(30)
    assert steps(run) == [(0, 20), (0, 30)]


def test_who_lost_the_run_saves_no_more(run: RunPaths, saver) -> None:
    from clusterseg.train.failures import TrainingError

    save = saver(claim(run, 1), keep_last=1)
    save(10)
    claim(run, 2)
    with pytest.raises(TrainingError, match="attempt 1 was claimed"):
        save(20)
    assert steps(run) == [(0, 10)]


def test_a_late_file_of_a_lost_attempt_takes_no_place(
    run: RunPaths, saver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its writer saw the claim too late. Two are to be kept: the last accepted and our own."""
    from clusterseg.train import store

    late = saver(claim(run, 1), keep_last=2)
    late(10)
    save = saver(claim(run, 2), keep_last=2)
    with monkeypatch.context() as blind:
        blind.setattr(store, "is_superseded", lambda *_: False)
        late(15)
    save(20)
    assert steps(run) == [(0, 10), (0, 15), (1, 20)]
    save(30)
    assert steps(run) == [(0, 15), (1, 20), (1, 30)]
    claim(run, 3)
    assert steps(run) == [(1, 20), (1, 30)]


def test_that_nothing_can_be_deleted_is_no_failed_save(
    run: RunPaths, saver, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from clusterseg.train import store

    def no_answer(*_: object) -> bool:
        raise OSError(116, "Stale file handle")

    save = saver(claim(run, 1), keep_last=1)
    save(10)
    monkeypatch.setattr(store, "may_prune", no_answer)
    save(20)
    assert steps(run) == [(0, 10), (0, 20)]
    assert "Stale file handle" in capsys.readouterr().err
