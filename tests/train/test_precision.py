"""Sixteen bits: it trains, float16's scale does what it says, and a resume has it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import msgspec
import numpy as np
import pytest
import tensorflow as tf

from clusterseg.losses import build_loss
from clusterseg.models import build_model
from clusterseg.runs.checkpoints import list_checkpoints
from clusterseg.spec.model import LossSpec, OptimizerSpec, TrainSpec
from clusterseg.train import precision, wishes
from clusterseg.train.assembly import Assembly, assemble
from clusterseg.train.communicator import Communicator
from clusterseg.train.communicator.solo import SoloCommunicator
from clusterseg.train.optimizers import build_optimizer
from clusterseg.train.precision import FIRST, HIGHEST, STEPS_TO_DOUBLE, policy, share
from clusterseg.train.state import TrainState
from clusterseg.train.step import build_train_step
from clusterseg.train.update import build_update
from tests.train.attempts import Attempts, StopAt
from tests.train.runs import Run, job
from tests.train.test_resume import _without
from tests.train.test_step import CLASSES, NOBODY, SIZE, Rank, Recorder, network, pictures, values

pytestmark = pytest.mark.slow

ADAM = OptimizerSpec(name="adam")


def trainer(
    model: keras.Model, communicator: Communicator, *, scaled: bool, size: tuple[int, int] = SIZE
) -> Rank:
    optimizer = build_optimizer(ADAM, model.trainable_variables)
    state = TrainState(model, optimizer, scaled=scaled)
    step = build_train_step(
        model, build_loss(LossSpec(), CLASSES), build_update(optimizer, state, ADAM), state,
        communicator, batch=2, size=size, flags=2,
    )  # fmt: skip
    return Rank(state, step)


def half(communicator: Communicator) -> Rank:
    with policy("float16"):
        model = network(norm=True)
    return trainer(model, communicator, scaled=True)


def scale(one: Rank) -> tuple[float, int]:
    state = one.state.variables
    return float(state["scale/value"].numpy()), int(state["scale/good_steps"].numpy())


def set_scale(one: Rank, value: float, good: int) -> None:
    one.state.variables["scale/value"].assign(value)
    one.state.variables["scale/good_steps"].assign(good)


def test_a_policy_ends_with_its_model_and_its_variables_are_float32() -> None:
    before = keras.config.dtype_policy()
    with pytest.raises(KeyError), policy("bfloat16"):
        assert keras.layers.Conv2D(1, 1).compute_dtype == "bfloat16"
        raise KeyError
    assert keras.config.dtype_policy() == before
    one = half(SoloCommunicator())
    assert one.state.model.get_layer("one").compute_dtype == "float16"
    kinds = {str(variable.dtype) for variable in one.state.trainable}
    assert kinds == {"float32"}


@pytest.mark.parametrize("communicator", [SoloCommunicator(), Recorder(NOBODY)])
def test_an_overflow_is_left_out_and_halves_the_scale(communicator: Communicator) -> None:
    one = half(communicator)
    assert scale(one) == (FIRST, 0)
    assert one.run(*pictures(2, 0), 2).finite
    assert scale(one) == (FIRST, 1)
    set_scale(one, 2.0**30, 7)  # more than float16 holds
    before = values(one)
    outcome = one.run(*pictures(2, 1), 2)
    assert outcome.overflowed and not outcome.finite
    assert (outcome.loss_sum, outcome.weight_sum) == (0, 0)
    assert scale(one) == (2.0**29, 0)
    after = values(one)
    for name in before.keys() - {"scale/value", "scale/good_steps"}:
        assert np.array_equal(before[name], after[name]), name
    while not (outcome := one.run(*pictures(2, 1), 2)).finite:
        assert outcome.overflowed
    assert scale(one)[0] >= 2.0**8 and scale(one)[1] == 1


def test_the_scale_doubles_after_so_many_good_steps_up_to_the_highest() -> None:
    one = trainer(network(norm=False), SoloCommunicator(), scaled=True)
    set_scale(one, 64.0, STEPS_TO_DOUBLE - 2)
    for expected in ((64.0, STEPS_TO_DOUBLE - 1), (128.0, 0), (128.0, 1)):
        one.run(*pictures(2, 0), 2)
        assert scale(one) == expected
    set_scale(one, HIGHEST, STEPS_TO_DOUBLE - 1)
    one.run(*pictures(2, 0), 2)
    assert scale(one) == (HIGHEST, 0)


def test_what_a_scale_of_one_does_not_mend_is_an_error() -> None:
    one = half(SoloCommunicator())
    images, labels = pictures(2, 0)
    images[0, 0, 0, 0] = np.nan
    set_scale(one, 2.0, 0)
    assert one.run(images, labels, 2).overflowed
    outcome = one.run(images, labels, 2)
    assert not outcome.finite and not outcome.overflowed
    assert scale(one) == (1.0, 0)
    plain = trainer(network(norm=True), SoloCommunicator(), scaled=False)
    assert not plain.run(images, labels, 2).overflowed
    assert not any(name.startswith("scale/") for name in plain.state.variables)


@pytest.mark.parametrize("communicator", [SoloCommunicator(), Recorder(NOBODY)])
def test_scaling_and_scaling_back_is_exact(communicator: Communicator) -> None:
    """In float32, which holds it: the gradients are those without a scale, bit for bit."""
    plain, scaled = (
        trainer(network(norm=True), communicator, scaled=scaled) for scaled in (False, True)
    )
    for number in range(3):
        for one in (plain, scaled):
            one.run(*pictures(2, number), 2)
    after = values(scaled)
    assert all(np.array_equal(value, after[name]) for name, value in values(plain).items())


def test_ranks_scale_the_sum_as_a_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a scaled sum itself, the negative twin, is more than float16 holds."""
    assert [share(pixels) for pixels in (1, 2, 3, 1024)] == [1, 1 / 2, 1 / 4, 1 / 1024]
    assert half(Recorder(NOBODY)).run(*pictures(2, 0), 2).finite
    monkeypatch.setattr("clusterseg.train.step.share", lambda pixels: 1.0)
    assert half(Recorder(NOBODY)).run(*pictures(2, 0), 2).overflowed


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_a_u_net_learns_in_sixteen_bits(kind: str) -> None:
    keras.utils.set_random_seed(0)
    size = (16, 16)
    with policy(kind):
        model = build_model("unet", CLASSES, size, base_filters=4, head_filters=None, dropout=0)
    one = trainer(model, SoloCommunicator(), scaled=kind == "float16", size=size)
    draw = np.random.default_rng(0)
    images = draw.normal(size=(2, *size, 3)).astype(np.float32)
    labels = (images[..., 0] > 0).astype(np.int32)
    outcomes = [one.run(images, labels, 2, rate=0.01) for _ in range(40)]
    losses = [each.loss_sum / each.weight_sum for each in outcomes if each.finite]
    assert len(losses) >= 35 and losses[-1] < 0.7 * losses[0]
    assert len({float(tf.reduce_sum(one.value)) for one in model.trainable_variables}) > 2


SETTINGS: dict[str, Any] = {"precision": "float16", "ema": 0.8, "epochs": 2}


@pytest.fixture(scope="module")
def halved(data: Path) -> Iterator[Assembly]:
    """Fast-SCNN in float16, with a scale that is too high at first and often doubled."""
    spec = msgspec.convert(job(data, **SETTINGS)["train"], TrainSpec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision, "FIRST", 2.0**17)
        patch.setattr(precision, "STEPS_TO_DOUBLE", 3)
        assembly = assemble(spec, SoloCommunicator(), flags=wishes.COUNT, threads=1)
        yield assembly


@pytest.fixture(scope="module")
def drawn(halved: Assembly) -> dict[str, Any]:
    return {name: np.array(one.numpy()) for name, one in halved.state.variables.items()}


@pytest.fixture
def attempts(data: Path, halved, drawn, tmp_path: Path) -> Callable[[str], Attempts]:
    def make(name: str) -> Attempts:
        return Attempts(Run(tmp_path / name, job(data, **SETTINGS)), halved, drawn)

    return make


def test_a_resume_goes_on_with_the_scale_and_to_leave_it_out_is_noticed(
    attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = attempts("whole")
    assert whole.attempt() is None
    state = whole.assembly.state.variables
    done = int(state["optimizer/iteration"].numpy())
    assert whole.steps(0) == list(range(1, 19)) and 6 <= done < 18  # some overflowed
    losses = [entry["loss"] for entry in whole.final()[1]]
    assert losses[1] < losses[0]
    windows = whole.run.windows(attempt=0)
    assert sum(one.skipped_steps for one in windows) == 18 - done
    assert [one.loss_scale for one in windows][-1] == float(state["scale/value"].numpy())
    history = list_checkpoints(whole.run.paths.checkpoints)[-1].header.history
    assert sum(entry["skipped_steps"] for entry in history) == 18 - done
    assert history[-1]["loss_scale"] == windows[-1].loss_scale

    stopped = attempts("stopped")
    for look in (8, 6):
        assert stopped.attempt(StopAt(look)) == "SIGUSR1"
    assert stopped.attempt() is None
    assert stopped.final() == whole.final()

    for part in ("scale/value", "scale/good_steps"):
        twin = attempts(part.replace("/", "-"))
        assert twin.attempt(StopAt(8)) == "SIGUSR1"
        with monkeypatch.context() as patch:
            patch.setattr(TrainState, "load", _without(part))
            assert twin.attempt() is None
        assert twin.final()[0] != whole.final()[0]
