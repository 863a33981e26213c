"""A save in the background: the training goes on, and the file holds what it is named after."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clusterseg.runs.checkpoint_file import read_verified
from clusterseg.runs.checkpoints import commit_checkpoint, list_checkpoints
from clusterseg.runs.choice import newest_acceptable
from clusterseg.runs.claims import claim_next
from clusterseg.runs.eventlog import EventWriter, iter_events
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Checkpoint, Claim
from clusterseg.spec.model import CheckpointSpec
from tests.runs.claiming import QUICK, World, wanted
from tests.train.batchings import ALONE

pytestmark = pytest.mark.slow
PATIENCE = 60.0


class Small:
    """A state of two variables, and a step that changes both in their places."""

    def __init__(self) -> None:
        import keras

        self.variables = {
            "kernel": keras.Variable(np.zeros((300, 7), np.float32)),
            "iteration": keras.Variable(np.zeros((), np.int64), dtype="int64"),
        }

    def step(self) -> None:
        for variable in self.variables.values():
            variable.assign_add(np.ones(variable.shape, variable.dtype))

    def bytes(self) -> list[bytes]:
        return [variable.numpy().tobytes() for variable in self.variables.values()]


@dataclasses.dataclass
class Bench:
    """A solo rank 0 that saves; `gate` holds back what its writer is about to commit."""

    run: RunPaths
    claim: Claim
    state: Small
    saver: Any
    gate: threading.Event
    reached: threading.Event

    def progress(self, step: int) -> Any:
        from clusterseg.train.progress import Progress

        return Progress(step=step, step_in_epoch=step)

    def events(self) -> list[Checkpoint]:
        path = self.run.attempt(self.claim.attempt).events(0)
        return [one for one in iter_events(path) if isinstance(one, Checkpoint)]

    def saved(self) -> list[int]:
        return [one.header.step for one in list_checkpoints(self.run.checkpoints)]

    def content(self, step: int) -> list[bytes]:
        (info,) = (one for one in list_checkpoints(self.run.checkpoints) if one.header.step == step)
        layout, data = read_verified(info.path)
        slots = (layout.tensors[name] for name in self.state.variables)
        return [bytes(data[slot.begin : slot.end]) for slot in slots]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    from clusterseg.train import store
    from clusterseg.train.communicator.solo import SoloCommunicator
    from clusterseg.train.saving import Saver

    (tmp_path / "run").mkdir()
    run = RunPaths(tmp_path / "run")
    claim = claim_next(run, wanted(pid=1), World(process=False), QUICK)
    assert claim is not None
    gate, reached = threading.Event(), threading.Event()

    def held_back(*args: Any, **kwargs: Any) -> Any:
        reached.set()
        assert gate.wait(PATIENCE)
        return commit_checkpoint(*args, **kwargs)

    monkeypatch.setattr(store, "commit_checkpoint", held_back)
    state: Any = Small()
    saver = Saver(
        paths=run, claim=claim, spec=CheckpointSpec(keep_last=5), state=state,
        communicator=SoloCommunicator(), events=EventWriter(run.attempt(0).events(0)), seed=0,
        batching=ALONE, identity={}, schedule={},
    )  # fmt: skip
    return Bench(run, claim, state, saver, gate, reached)


def train_on_while_it_saves(bench: Bench) -> list[bytes]:
    """Saves step 3, and does ten further steps before a byte is written; the state at step 3."""
    for _ in range(3):
        bench.state.step()
    then = bench.state.bytes()
    bench.saver.begin(bench.progress(3))
    assert bench.reached.wait(PATIENCE)
    for _ in range(10):
        bench.state.step()
        assert bench.saver.poll() is False
    assert bench.saved() == [] and bench.events() == []  # no event before the file
    bench.gate.set()
    bench.saver.settle()
    return then


def test_steps_go_on_and_the_file_holds_the_state_of_its_step(bench: Bench) -> None:
    then = train_on_while_it_saves(bench)
    assert bench.saved() == [3] and [one.step for one in bench.events()] == [3]
    assert bench.content(3) == then != bench.state.bytes()
    bench.saver.save(bench.progress(13))  # at once, of another step: the memory is used again
    assert bench.content(3) == then and bench.content(13) == bench.state.bytes()


def test_live_memory_would_be_noticed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative twin: a snapshot that hands out what the steps go on changing."""
    from clusterseg.train.snapshot import Snapshot

    take = Snapshot.take

    class Live:
        def __init__(self, taken: Any, variable: Any) -> None:
            self.name, self.dtype, self.shape = taken.name, taken.dtype, taken.shape
            self.size, self._variable = taken.size, variable

        @property
        def data(self) -> memoryview:
            return memoryview(self._variable.numpy().tobytes())

    def lazy(self: Snapshot) -> list[Any]:
        return [Live(one, bench.state.variables[one.name]) for one in take(self)]

    monkeypatch.setattr(Snapshot, "take", lazy)
    then = train_on_while_it_saves(bench)
    assert bench.content(3) != then


def test_a_save_waits_for_the_one_before_and_none_is_lost(bench: Bench) -> None:
    bench.saver.begin(bench.progress(1))
    bench.state.step()
    opener = threading.Timer(0.3, bench.gate.set)
    opener.start()
    bench.saver.begin(bench.progress(2))
    bench.saver.save(bench.progress(2))  # has begun already: it is waited for, not written anew
    opener.join()
    assert bench.saved() == [1, 2]
    one, two = bench.events()
    assert (one.step, two.step) == (1, 2)
    assert two.blocked_seconds > 0.2  # an event says so


def test_killed_before_it_is_durable_the_run_resumes_from_the_one_before(bench: Bench) -> None:
    bench.gate.set()
    bench.saver.save(bench.progress(1))
    bench.gate.clear()
    bench.reached.clear()
    bench.saver.begin(bench.progress(2))
    assert bench.reached.wait(PATIENCE)
    choice = newest_acceptable(bench.run, bench.claim)  # as the next claim would find it
    assert choice.newest is not None and choice.newest.header.step == 1
    assert len(bench.events()) == 1
    bench.gate.set()
    bench.saver.settle()


def test_what_the_header_says_is_of_that_step_too(bench: Bench) -> None:
    """The history goes on growing while the file is written."""
    progress = bench.progress(9)
    progress.step_in_epoch, progress.epoch, progress.validated = 0, 1, False
    progress.complete_epoch(0.5, 0.5, 0.5)
    bench.saver.begin(progress)
    assert bench.reached.wait(PATIENCE)
    progress.complete_epoch(0.4, 0.4, 0.4)
    bench.gate.set()
    bench.saver.settle()
    (info,) = list_checkpoints(bench.run.checkpoints)
    assert len(info.header.history) == 1


@pytest.mark.parametrize("ends", ["poll", "save"])
def test_an_error_in_the_thread_reaches_the_loop(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    from clusterseg.train import store
    from clusterseg.train.failures import TrainingError

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("a mistake")

    monkeypatch.setattr(store, "commit_checkpoint", broken)
    bench.saver.begin(bench.progress(1))
    told: Callable[[], Any] = bench.saver.give_up
    if ends == "save":
        told = lambda: bench.saver.save(bench.progress(1))  # noqa: E731
    else:
        while not bench.saver.poll():
            pass
    with pytest.raises(TrainingError, match=r"^save: RuntimeError: a mistake") as caught:
        told()
    assert caught.value.agreed


def test_auto_saves_early_and_writes_down_what_that_cost(
    bench: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    from clusterseg.spec.model import Every
    from clusterseg.train.communicator.solo import SoloCommunicator
    from clusterseg.train.lives import cost_before
    from clusterseg.train.saving import Saver

    bench.gate.set()
    state: Any = bench.state
    events = EventWriter(bench.run.attempt(0).events(0))
    saver = Saver(
        paths=bench.run, claim=bench.claim, spec=CheckpointSpec(every=Every(auto=True)),
        state=state, communicator=SoloCommunicator(), events=events, seed=0, batching=ALONE,
        identity={}, schedule={},
    )  # fmt: skip
    due = []
    for _ in range(20):
        assert not saver.poll()
        due.append(saver.due())
    assert due == [False] * 19 + [True]
    saver.begin(bench.progress(20))
    assert not saver.due()
    saver.save(bench.progress(20))
    assert not saver.due()
    assert "checkpoint.every: auto saves every" in capfd.readouterr().err
    saver.save(bench.progress(21))
    (first, second) = (one.header.times for one in list_checkpoints(bench.run.checkpoints))
    assert "cost" not in first and 0 < second["cost"] < 60 and second["interval"] >= 10
    resumed = claim_next(bench.run, wanted(pid=2), World(process=False), QUICK)
    assert resumed is not None and cost_before(bench.run, resumed) == second["cost"]


def test_every_rank_knows_how_long_a_save_takes_before_it_waits_for_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from clusterseg.train.communicator.solo import SoloCommunicator
    from clusterseg.train.saving import Saver

    class Other(SoloCommunicator):
        """Rank 1, whose rank 0 has seen a save of 50 s."""

        def agree(self, flags: Any) -> list[int]:
            return [max(50, *flags, 0)]

        def broadcast_text(self, text: str) -> str:
            return ""

    def saver(communicator: Any, heard: list[float]) -> Saver:
        state: Any = bench.state
        return Saver(
            paths=bench.run, claim=bench.claim, spec=CheckpointSpec(), state=state,
            communicator=communicator, events=EventWriter(tmp_path / f"{len(told)}.jsonl"),
            seed=0, batching=ALONE, identity={}, schedule={}, expect=heard.append,
        )  # fmt: skip

    told: list[list[float]] = [[]]
    bench.gate.set()
    first = saver(SoloCommunicator(), told[0])
    first.begin(bench.progress(1))
    first.settle()
    written = iter_events(tmp_path / "1.jsonl")
    (event,) = (one for one in written if isinstance(one, Checkpoint))
    first.save(bench.progress(2))
    assert 0 < event.blocked_seconds + event.write_seconds <= told[0][0]

    told.append([])
    other = Other()
    monkeypatch.setattr(other, "rank", 1)
    saver(other, told[1]).save(bench.progress(3))
    assert told[1] == [50]
