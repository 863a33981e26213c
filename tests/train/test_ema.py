"""Averaged weights: what they are, that they are validated with, and that a resume has them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import tensorflow as tf

from clusterseg.losses import build_loss
from clusterseg.runs.checkpoints import list_checkpoints
from clusterseg.spec.model import LossSpec, OptimizerSpec, TrainSpec
from clusterseg.train import evaluate, wishes
from clusterseg.train.assembly import Assembly, assemble
from clusterseg.train.communicator.solo import SoloCommunicator
from clusterseg.train.inference.device import Prepared
from clusterseg.train.initial_weights.load import load_initial_weights
from clusterseg.train.optimizers import build_optimizer
from clusterseg.train.state import TrainState
from clusterseg.train.step import TrainStep, build_evaluation_step, build_train_step
from clusterseg.train.update import build_update
from tests.train.attempts import Attempts, StopAt
from tests.train.runs import Run, job
from tests.train.test_step import CLASSES, SIZE, network, pictures

pytestmark = pytest.mark.slow

DECAY = 0.4  # reached in the fifth step, so that both ends of the rule are seen
ADAM = OptimizerSpec(name="adam")


def trainer(decay: float | None) -> tuple[TrainState, TrainStep]:
    model = network(norm=True)
    optimizer = build_optimizer(ADAM, model.trainable_variables)
    state = TrainState(model, optimizer, ema=decay)
    step = build_train_step(
        model, build_loss(LossSpec(), CLASSES), build_update(optimizer, state, ADAM), state,
        SoloCommunicator(), batch=2, size=SIZE, flags=0,
    )  # fmt: skip
    return state, step


def run(step: TrainStep, images: Any, labels: Any) -> bool:
    none = np.zeros((0, 2), np.int64)
    outcome = step(
        tf.constant(images), tf.constant(labels), real=2, learning_rate=0.1, seeds=none,
        flags=np.zeros(0, np.float32),
    )  # fmt: skip
    return outcome.finite


def values(state: TrainState, room: str) -> dict[str, np.ndarray[Any, Any]]:
    return {
        name.removeprefix(room): np.array(variable.numpy())
        for name, variable in state.variables.items()
        if name.startswith(room)
    }


def test_they_follow_all_that_a_step_changes_and_nothing_else() -> None:
    state, step = trainer(DECAY)
    expected = values(state, "model/")
    assert {"norm/moving_mean", "norm/gamma", "one/kernel"} <= expected.keys()
    assert values(state, "ema/").keys() == expected.keys()
    for number in range(1, 9):
        images, labels = pictures(2, number)
        bad = np.full_like(images, np.nan)
        assert not run(step, bad, labels)  # is no step, and counts as none
        assert run(step, images, labels)
        decay = min(DECAY, (1 + number) / (10 + number))
        now = values(state, "model/")
        expected = {name: one + (1 - decay) * (now[name] - one) for name, one in expected.items()}
        for name, average in values(state, "ema/").items():
            np.testing.assert_allclose(average, expected[name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_the_training_goes_on_with_its_own_weights() -> None:
    (plain, step), (averaged, other) = trainer(None), trainer(DECAY)
    for number in range(3):
        run(step, *pictures(2, number))
        run(other, *pictures(2, number))
    with_averages = values(averaged, "model/")
    for name, value in values(plain, "model/").items():
        assert np.array_equal(value, with_averages[name]), name


def test_the_averages_are_evaluated_and_nothing_is_changed_by_it() -> None:
    state, step = trainer(DECAY)
    for number in range(4):
        run(step, *pictures(2, number))
    loss = build_loss(LossSpec(), CLASSES)
    own, averaged = (
        build_evaluation_step(
            state.model, loss, batch=2, size=SIZE, classes=CLASSES, ignore=255, averages=averages
        )
        for averages in (None, state.averages)
    )
    images, labels = (tf.constant(one) for one in pictures(2, 9))
    batch = [images, labels, labels, tf.constant([SIZE, SIZE])]
    before = values(state, "")
    found = float(averaged(*batch)[1])
    assert found != float(own(*batch)[1])
    after = values(state, "")
    assert all(np.array_equal(before[name], after[name]) for name in before)
    for name, average in values(state, "ema/").items():
        state.variables[f"model/{name}"].assign(average)
    assert found == float(own(*batch)[1])


@pytest.fixture(scope="module")
def averaging(data: Path) -> Assembly:
    spec = msgspec.convert(job(data, **SETTINGS)["train"], TrainSpec)
    return assemble(spec, SoloCommunicator(), flags=wishes.COUNT, threads=1)


@pytest.fixture(scope="module")
def drawn(averaging: Assembly) -> dict[str, Any]:
    return values(averaging.state, "")


@pytest.fixture
def attempts(data: Path, averaging, drawn, tmp_path: Path) -> Callable[[str], Attempts]:
    def make(name: str) -> Attempts:
        return Attempts(Run(tmp_path / name, job(data, **SETTINGS)), averaging, drawn)

    return make


SETTINGS: dict[str, Any] = {"ema": 0.8, "epochs": 2}


def test_a_resume_goes_on_with_them_and_to_leave_them_out_is_noticed(
    attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = attempts("whole")
    assert whole.attempt() is None
    stopped = attempts("stopped")
    assert stopped.attempt(StopAt(6)) == "SIGUSR1"
    assert stopped.attempt(StopAt(7)) == "SIGUSR1"  # in the validation
    assert stopped.attempt() is None
    assert stopped.final() == whole.final()

    load = TrainState.load

    def forgetful(self: TrainState, name: str, layout: Any, data: memoryview) -> None:
        load(self, name, layout, data)
        assert self.averages is not None
        self.averages.start()

    twin = attempts("twin")
    assert twin.attempt(StopAt(6)) == "SIGUSR1"
    monkeypatch.setattr(TrainState, "load", forgetful)
    assert twin.attempt() is None
    assert twin.final()[0] != whole.final()[0]
    assert twin.final()[1] != whole.final()[1]  # the figures of the validation as well


def test_evaluate_and_fine_tuning_take_what_was_validated(
    attempts, drawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = attempts("run")
    assert one.attempt() is None
    newest = list_checkpoints(one.run.paths.checkpoints)[-1]
    # This process has its threads already.
    monkeypatch.setattr(evaluate, "prepare", lambda accelerator: Prepared(1, None))
    found = evaluate.evaluate_checkpoint(
        str(one.run.root), path=str(newest.path), sha256=newest.sha256, submission=0
    )
    history = one.final()[1][-1]
    assert found["val_loss"] == history["val_loss"]
    assert found["val_accuracy"] == history["val_accuracy"]

    state = one.assembly.state
    trained = values(state, "model/"), values(state, "ema/")
    for name, value in drawn.items():
        state.variables[name].assign(value)
    load_initial_weights(newest.path, state)
    got = values(state, "model/")
    assert all(np.array_equal(value, got[name]) for name, value in trained[1].items())
    assert not np.array_equal(
        trained[0]["classifier_logits/kernel"], got["classifier_logits/kernel"]
    )
