"""One step: a true mean over the pixels of all ranks, whatever their shares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from clusterseg.losses import Loss, build_loss
from clusterseg.spec.model import LossSpec, OptimizerSpec
from clusterseg.train.communicator.base import Communicator
from clusterseg.train.communicator.solo import SoloCommunicator
from clusterseg.train.optimizers import build_optimizer
from clusterseg.train.state import TrainState
from clusterseg.train.step import StepOutcome, TrainStep, build_train_step
from clusterseg.train.update import all_finite, build_update, guarded_update

pytestmark = pytest.mark.slow
CLASSES, SIZE = 3, (4, 5)
PLAIN = OptimizerSpec(name="sgd", momentum=0.0)


class Recorder(SoloCommunicator):
    """One of two ranks: keeps what it would send, and gets what it is told."""

    size = 2

    def __init__(self, answer: tf.Variable) -> None:
        self.answer = answer
        self.sent: list[np.ndarray] = []

    def _keep(self, vector: np.ndarray) -> np.ndarray:
        self.sent.append(vector.copy())
        return np.asarray(self.answer.numpy()) if self.answer.shape[0] else vector

    def _sum_in_graph(self, vector: tf.Tensor) -> tf.Tensor:
        return tf.numpy_function(self._keep, [vector], tf.float32)


def network(norm: bool) -> keras.Model:
    keras.utils.set_random_seed(3)
    image = keras.Input((*SIZE, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", name="one")(image)
    if norm:
        x = keras.layers.BatchNormalization(name="norm")(x)
    return keras.Model(image, keras.layers.Conv2D(CLASSES, 1, name="two")(x))


@dataclass
class Rank:
    state: TrainState
    step: TrainStep

    def run(self, images: Any, labels: Any, real: int, *, rate: float = 0.5) -> StepOutcome:
        return self.step(
            tf.constant(images),
            tf.constant(labels),
            real=real,
            learning_rate=rate,
            seeds=np.zeros((0, 2), np.int64),
            flags=np.asarray([0, 1], np.float32),
        )


def rank(
    communicator: Communicator,
    batch: int,
    *,
    norm: bool = False,
    optimizer: OptimizerSpec = PLAIN,
    spoil: Callable[[Loss], Loss] = lambda loss: loss,
) -> Rank:
    model = network(norm)
    built = build_optimizer(optimizer, model.trainable_variables)
    state = TrainState(model, built)
    step = build_train_step(
        model, spoil(build_loss(LossSpec(), CLASSES)), build_update(built, state, optimizer), state,
        communicator, batch=batch, size=SIZE, flags=2,
    )  # fmt: skip
    return Rank(state, step)


def pictures(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    return (
        draw.normal(size=(count, *SIZE, 3)).astype(np.float32),
        draw.integers(0, CLASSES, (count, *SIZE)).astype(np.int32),
    )


def values(one: Rank) -> dict[str, np.ndarray]:
    return {name: np.array(variable.numpy()) for name, variable in one.state.variables.items()}


def exchanged(
    images: np.ndarray, labels: np.ndarray, real: tuple[int, int], *, norm: bool = False
) -> tuple[list[Rank], list[StepOutcome]]:
    """Two ranks' halves of a batch: what each sends is added up and given to both."""
    half = len(images) // 2
    halves = [(images[:half], labels[:half]), (images[half:], labels[half:])]
    empty = tf.Variable(np.zeros(0, np.float32))
    sent = []
    for share, number in zip(halves, real, strict=True):
        listener = Recorder(empty)
        rank(listener, half, norm=norm).run(*share, number)
        sent.append(listener.sent[0])
    total = tf.Variable(sent[0] + sent[1])
    ranks, outcomes = [], []
    for share, number in zip(halves, real, strict=True):
        one = rank(Recorder(total), half, norm=norm)
        outcomes.append(one.run(*share, number))
        ranks.append(one)
    return ranks, outcomes


def test_two_halves_with_uneven_labels_step_like_one_batch() -> None:
    images, labels = pictures(4, 0)
    labels[0] = 255  # rank 0 has far fewer valid pixels: a mean of means would be wrong
    labels[1, :, 1:] = 255
    whole = rank(SoloCommunicator(), 4)
    expected = whole.run(images, labels, 4)
    ranks, outcomes = exchanged(images, labels, (2, 2))
    assert outcomes[0].weight_sum == expected.weight_sum == (labels != 255).sum()
    assert outcomes[0].loss_sum == pytest.approx(expected.loss_sum, rel=1e-6)
    assert list(outcomes[0].flags) == [0, 2] and list(expected.flags) == [0, 1]
    assert outcomes[0].comm > 0 and expected.comm == 0
    one, other, single = values(ranks[0]), values(ranks[1]), values(whole)
    for name, value in single.items():
        assert np.array_equal(one[name], other[name]), name  # bit-equal
        np.testing.assert_allclose(one[name], value, rtol=2e-5, atol=1e-6, err_msg=name)


def test_padding_changes_neither_gradients_nor_counts() -> None:
    images, labels = pictures(4, 1)
    labels[2:] = 255
    whole = rank(SoloCommunicator(), 4)
    expected = whole.run(images, labels, 2)
    alone = rank(SoloCommunicator(), 2)
    outcome = alone.run(images[:2], labels[:2], 2)
    assert outcome.loss_sum == pytest.approx(expected.loss_sum, rel=1e-6)
    for name, value in values(alone).items():
        np.testing.assert_allclose(value, values(whole)[name], rtol=2e-5, atol=1e-6)


def test_batch_norm_statistics_are_the_ranks_mean_weighted_by_real_images() -> None:
    images, labels = pictures(4, 2)
    labels[3] = 255
    ranks, _ = exchanged(images, labels, (2, 1), norm=True)
    own = []
    for share in (images[:2], images[2:]):
        alone = rank(SoloCommunicator(), 2, norm=True)
        alone.run(share, labels[:2], 2)
        own.append(values(alone))
    for name in ("model/norm/moving_mean", "model/norm/moving_variance"):
        mean = (2 * own[0][name] + own[1][name]) / 3
        np.testing.assert_allclose(values(ranks[0])[name], mean, rtol=1e-5)
        assert np.array_equal(values(ranks[0])[name], values(ranks[1])[name])
        assert not np.allclose(own[0][name], own[1][name])


def test_a_batch_without_a_label_changes_no_weight() -> None:
    images, labels = pictures(2, 3)
    one = rank(SoloCommunicator(), 2)
    before = values(one)
    outcome = one.run(images, np.full_like(labels, 255), 2)
    assert outcome.weight_sum == 0 and outcome.finite
    after = values(one)
    for name in before:
        if name.startswith("model/"):
            assert np.array_equal(before[name], after[name])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_told(value: float) -> None:
    images, labels = pictures(2, 4)
    one = rank(SoloCommunicator(), 2)
    assert one.run(images, labels, 2).finite
    images[0, 0, 0, 0] = value
    assert not one.run(images, labels, 2).finite
    empty = tf.Variable(np.zeros(0, np.float32))
    assert not rank(Recorder(empty), 2).run(images, labels, 2).finite


def test_the_learning_rate_is_that_of_the_call() -> None:
    images, labels = pictures(2, 5)
    one, other = rank(SoloCommunicator(), 2), rank(SoloCommunicator(), 2)
    start = values(one)
    one.run(images, labels, 2, rate=0.1)
    other.run(images, labels, 2, rate=0.2)
    name = "model/two/kernel"
    moved = values(one)[name] - start[name]
    np.testing.assert_allclose(values(other)[name] - start[name], 2 * moved, rtol=1e-4, atol=1e-7)


class Spoiled:
    """A loss that is as it was, with NaN in the gradient of one logit while it is told so."""

    def __init__(self) -> None:
        self.now = tf.Variable(False)

    def __call__(self, loss: Loss) -> Loss:
        factor = np.ones((*SIZE, CLASSES), np.float32)
        factor[0, 0, 0] = np.nan

        @tf.custom_gradient  # type: ignore[untyped-decorator]
        def spoil(logits: tf.Tensor, now: tf.Tensor) -> Any:
            return tf.identity(logits), lambda up: (up * tf.where(now, factor, 1.0), None)

        return lambda labels, logits, step=None: loss(
            labels, spoil(logits, self.now.read_value()), step
        )


def spoiled_step(communicator: Communicator) -> tuple[Rank, dict[str, np.ndarray], StepOutcome]:
    """One good step of Adam with batch norm; what it left; and the outcome of a spoiled one."""
    spoil = Spoiled()
    one = rank(communicator, 2, norm=True, optimizer=OptimizerSpec(name="adam"), spoil=spoil)
    one.run(*pictures(2, 6), 2)
    before = values(one)
    spoil.now.assign(True)
    return one, before, one.run(*pictures(2, 7), 2)


NOBODY = tf.Variable(np.zeros(0, np.float32))


@pytest.mark.parametrize("communicator", [SoloCommunicator(), Recorder(NOBODY)])
def test_nan_in_a_gradient_alone_changes_nothing_at_all(communicator: Communicator) -> None:
    one, before, outcome = spoiled_step(communicator)
    assert np.isfinite(outcome.loss_sum) and not outcome.finite
    assert {"optimizer/iteration", "model/norm/moving_mean"} <= before.keys()
    after = values(one)
    for name, value in before.items():
        assert np.array_equal(value, after[name]), name


@pytest.mark.parametrize("communicator", [SoloCommunicator(), Recorder(NOBODY)])
def test_statistics_move_with_a_step_that_has_seen_a_picture_and_with_no_other(
    communicator: Communicator,
) -> None:
    one = rank(communicator, 2, norm=True)
    images, labels = pictures(2, 6)
    start = values(one)
    assert one.run(images, np.full_like(labels, 255), 0).finite
    after = values(one)
    moving = [name for name in start if "moving_" in name]
    assert len(moving) == 2
    for name in moving:
        assert np.array_equal(start[name], after[name])
    assert one.run(images, labels, 2).finite
    after = values(one)
    for name in moving:
        assert not np.array_equal(start[name], after[name])


@pytest.mark.parametrize("part", ["update", "statistics"])
def test_a_step_that_is_not_guarded_is_noticed(monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    """The negative twins: the update always done, or the forward pass not undone."""

    def careless(*arguments: Any, finite: Any, before: Any, **others: Any) -> Any:
        if part == "update":
            finite = tf.constant(True)
        state = arguments[1]
        moved = [tf.identity(one.value) for one in state.statistics]
        return guarded_update(*arguments, finite=finite, before=moved, **others)

    monkeypatch.setattr("clusterseg.train.step.guarded_update", careless)
    one, before, _ = spoiled_step(SoloCommunicator())
    after = values(one)
    changed = {name for name in after if not np.array_equal(after[name], before[name])}
    assert "model/norm/moving_mean" in changed
    assert ("optimizer/iteration" in changed) == (part == "update")


def test_a_step_after_one_that_was_left_out_is_as_if_there_had_been_none() -> None:
    images, labels = pictures(2, 8)
    bad = np.full_like(images, np.nan)
    adam = OptimizerSpec(name="adam")
    one, other = (rank(SoloCommunicator(), 2, norm=True, optimizer=adam) for _ in range(2))
    assert not one.run(bad, labels, 2, rate=7.0).finite
    outcomes = [each.run(images, labels, 2) for each in (one, other)]
    assert outcomes[0].finite and outcomes[0].loss_sum == outcomes[1].loss_sum
    for name, value in values(other).items():
        assert np.array_equal(value, values(one)[name]), name


@pytest.mark.parametrize("norm", [None, 1e-3])
def test_a_step_tells_the_norm_of_its_gradients_where_it_has_one(norm: float | None) -> None:
    spec = OptimizerSpec(name="sgd", momentum=0.0, clip_norm=norm)
    plain, one = (rank(SoloCommunicator(), 2, optimizer=each) for each in (PLAIN, spec))
    before = values(plain)
    outcomes = [each.run(*pictures(2, 8), 2, rate=1.0) for each in (plain, one)]
    assert np.isnan(outcomes[0].gradient_norm)
    after = values(plain)
    moved = [after[name] - before[name] for name in before if name.startswith("model/")]
    wanted = np.sqrt(sum(float(np.square(each).sum()) for each in moved))
    if norm is None:
        assert np.isnan(outcomes[1].gradient_norm)
    else:
        assert outcomes[1].gradient_norm == pytest.approx(wanted, rel=1e-4) and wanted > norm
    bad = np.full_like(pictures(2, 8)[0], np.nan)
    assert np.isnan(one.run(bad, pictures(2, 8)[1], 2).gradient_norm)


def test_large_is_not_infinite() -> None:
    """Compiled, too: in a graph, TensorFlow must not take x · 0 for 0, nor add before it."""
    large = tf.constant([3e38, 3e38])
    assert not np.isfinite(tf.reduce_sum(large))
    many = np.full(2**15, 3e38, np.float32)  # of the size that is looked at by itself
    shapes = [tf.TensorSpec([], tf.float32), tf.TensorSpec([2]), tf.TensorSpec(many.shape)]
    compiled = tf.function(lambda *tensors: all_finite(tensors), input_signature=shapes)
    assert all_finite([large, tf.constant(0.0)]) and compiled(1.0, large, many)
    for bad in (np.nan, np.inf, -np.inf):
        assert not all_finite([large, tf.constant([0.0, bad])])
        assert not compiled(bad, large, many)
        assert not compiled(1.0, tf.constant([3e38, bad]), many)
        for place in (0, 17, len(many) - 1):
            spoiled = many.copy()
            spoiled[place] = bad
            assert not compiled(1.0, large, spoiled)
