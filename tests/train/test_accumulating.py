"""Micro-batches: a step over several of them is that of one large batch, or of as many ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import msgspec
import numpy as np
import pytest
import tensorflow as tf

from clusterseg.losses import build_loss
from clusterseg.models.layers import Dropout
from clusterseg.runs.checkpoints import list_checkpoints
from clusterseg.spec.model import LossSpec, OptimizerSpec, TrainSpec
from clusterseg.train import accumulating, wishes
from clusterseg.train.assembly import assemble
from clusterseg.train.communicator.base import Communicator
from clusterseg.train.communicator.solo import SoloCommunicator
from clusterseg.train.optimizers import build_optimizer
from clusterseg.train.state import TrainState
from clusterseg.train.step import StepOutcome, build_train_step
from clusterseg.train.update import build_update
from tests.train.attempts import Attempts, StopAt
from tests.train.runs import Run, job
from tests.train.test_step import CLASSES, SIZE, Recorder, exchanged, network, pictures, values

pytestmark = pytest.mark.slow
SGD = OptimizerSpec(name="sgd", momentum=0.9)


def masked() -> keras.Model:
    """A network with dropout."""
    keras.utils.set_random_seed(3)
    image = keras.Input((*SIZE, 3), batch_size=None)
    x = keras.layers.Conv2D(4, 3, padding="same", name="one")(image)
    x = Dropout(0.5, name="drop")(x)
    return keras.Model(image, keras.layers.Conv2D(CLASSES, 1, name="two")(x))


class Accumulating:
    """A step of `shares` micro-batches of `batch` pictures."""

    def __init__(
        self,
        model: keras.Model,
        batch: int,
        shares: int,
        *,
        communicator: Communicator | None = None,
        optimizer: OptimizerSpec = SGD,
    ) -> None:
        built = build_optimizer(optimizer, model.trainable_variables)
        self.state = TrainState(model, built)
        self.shares, self.batch = shares, batch
        self.step = build_train_step(
            model, build_loss(LossSpec(), CLASSES), build_update(built, self.state, optimizer),
            self.state, communicator or SoloCommunicator(), batch=batch, shares=shares, size=SIZE,
            flags=2,
        )  # fmt: skip

    def run(self, images: Any, labels: Any, real: list[int] | None = None) -> StepOutcome:
        return self.step(
            tf.constant(images), tf.constant(labels), real=real or [self.batch] * self.shares,
            learning_rate=0.5, seeds=np.array([[7, 0]] * len(self.state.generators), np.int64)
            .reshape(-1, 2),
            flags=np.asarray([0, 1], np.float32),
        )  # fmt: skip


def alike(one: Any, other: Any) -> bool:
    mine, others = values(one), values(other)
    names = [name for name in mine if not name.startswith("generator/")]
    assert names == [name for name in others if not name.startswith("generator/")]
    return all(np.allclose(mine[name], others[name], rtol=1e-5, atol=1e-6) for name in names)


def test_two_batches_of_two_step_like_one_of_four() -> None:
    images, labels = pictures(4, seed=1)
    labels[:2, 1:] = 255  # a mean of the two means would be another number
    small, large = Accumulating(network(norm=False), 2, 2), Accumulating(network(norm=False), 4, 1)
    for number in range(3):
        one, other = (each.run(images + number, labels) for each in (small, large))
        assert one.finite and one.weight_sum == other.weight_sum
        assert one.loss_sum == pytest.approx(other.loss_sum, rel=1e-5)
        assert list(one.flags) == list(other.flags) == [0, 1]
    assert alike(small, large)
    assert not alike(small, Accumulating(network(norm=False), 2, 2))  # it has learnt


def test_dropout_masks_a_picture_alike_in_whichever_batch_it_comes() -> None:
    images, labels = pictures(4, seed=2)
    small, large = Accumulating(masked(), 2, 2), Accumulating(masked(), 4, 1)
    small.run(images, labels)
    large.run(images, labels)
    assert alike(small, large)
    swapped = Accumulating(masked(), 4, 1)
    swapped.run(images[[2, 3, 0, 1]], labels[[2, 3, 0, 1]])
    assert not alike(small, swapped)


@pytest.mark.parametrize("real", [(2, 2), (2, 1), (2, 0)])
def test_with_batch_norm_they_are_as_two_ranks(real: tuple[int, int]) -> None:
    images, labels = pictures(4, seed=3)
    labels[2 + real[1] :] = 255
    (rank, _), _ = exchanged(images, labels, real, norm=True)
    alone = Accumulating(
        network(norm=True), 2, 2, optimizer=OptimizerSpec(name="sgd", momentum=0.0)
    )
    alone.run(images, labels, list(real))
    assert alike(alone, rank)


def test_the_second_batch_must_not_begin_with_the_statistics_of_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = accumulating._assign
    left_out = []

    def careless(state: TrainState, moved: Any) -> None:
        if "while" in tf.compat.v1.get_default_graph().name:  # before each batch
            left_out.append(moved)
        else:
            original(state, moved)

    monkeypatch.setattr(accumulating, "_assign", careless)
    images, labels = pictures(4, seed=3)
    (rank, _), _ = exchanged(images, labels, (2, 2), norm=True)
    alone = Accumulating(
        network(norm=True), 2, 2, optimizer=OptimizerSpec(name="sgd", momentum=0.0)
    )
    alone.run(images, labels)
    assert left_out and not alike(alone, rank)


def test_a_rank_with_two_batches_sends_the_sums_of_both() -> None:
    images, labels = pictures(4, seed=4)
    labels[:2, 1:] = 255
    sent = []
    for batch, shares in ((2, 2), (4, 1)):
        listener = Recorder(tf.Variable(np.zeros(0, np.float32)))
        Accumulating(network(norm=False), batch, shares, communicator=listener).run(images, labels)
        sent.append(listener.sent[0])
    assert np.allclose(*sent, rtol=1e-4, atol=1e-4)
    assert sent[0][-3] == 4  # images


@pytest.mark.parametrize("spoilt", [0, 3])
def test_one_batch_that_is_not_finite_keeps_all_of_the_step_away(spoilt: int) -> None:
    images, labels = pictures(4, seed=5)
    images[spoilt] = np.inf
    one = Accumulating(network(norm=True), 2, 2)
    before = values(one)
    assert not one.run(images, labels).finite
    after = values(one)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_stopped_and_resumed_with_accumulation_it_ends_bit_equal(
    data: Path, tmp_path: Path
) -> None:
    """36 pictures in steps of 3 × 3; stopped inside epochs, and with Adam's slots."""
    given = job(data, batch_size=3, accumulate=3, epochs=2, optimizer={"name": "adam"})
    spec = msgspec.convert(given["train"], TrainSpec)
    assembly = assemble(spec, SoloCommunicator(), flags=wishes.COUNT, threads=1)
    assert (assembly.batching.global_batch, assembly.steps_per_epoch) == (9, 4)
    fresh = {name: np.array(one.numpy()) for name, one in assembly.state.variables.items()}
    whole, cut = (
        Attempts(Run(tmp_path / name, given), assembly, fresh) for name in ("whole", "cut")
    )
    assert whole.attempt() is None
    assert sum(one.images for one in whole.run.windows()) == 2 * 36
    for look in (2, 1):  # none reaches a validation, which is looked at by the clock
        assert cut.attempt(StopAt(look)) == "SIGUSR1"
    inside = list_checkpoints(cut.run.paths.checkpoints)[-1].header
    assert inside.samples_in_epoch == 9 * inside.step_in_epoch > 0
    assert (inside.micro_batch, inside.global_batch) == (3, 9)
    assert cut.attempt() is None
    assert cut.final() == whole.final()
