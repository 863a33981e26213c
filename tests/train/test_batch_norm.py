"""Batch norm as a job asks for it: frozen."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from clusterseg.errors import ClustersegError
from clusterseg.losses import build_loss
from clusterseg.spec.model import LossSpec, OptimizerSpec
from clusterseg.train.batch_norm import freeze
from clusterseg.train.communicator import Communicator
from clusterseg.train.communicator.solo import SoloCommunicator
from clusterseg.train.optimizers import build_optimizer
from clusterseg.train.state import TrainState
from clusterseg.train.step import build_train_step
from clusterseg.train.update import build_update
from tests.train.test_step import CLASSES, SIZE, Rank, network, pictures, values

pytestmark = pytest.mark.slow

SPEC = OptimizerSpec(weight_decay=0.1)


class OfEleven(SoloCommunicator):
    """One of eleven ranks that all read the same; (11 x) / 11 is not always x in float32."""

    size = 11

    def _sum_in_graph(self, vector: tf.Tensor) -> tf.Tensor:
        return vector * 11


def frozen_rank(communicator: Communicator) -> Rank:
    model = network(norm=True)
    draw = np.random.default_rng(0)
    for variable in model.get_layer("norm").variables:  # as if they had been loaded
        variable.assign(draw.uniform(0.1, 2, variable.shape).astype(np.float32))
    freeze(model)
    optimizer = build_optimizer(SPEC, model.trainable_variables)
    state = TrainState(model, optimizer, ema=0.9)
    loss = build_loss(LossSpec(), CLASSES)
    update = build_update(optimizer, state, SPEC)
    step = build_train_step(model, loss, update, state, communicator, batch=2, size=SIZE, flags=2)
    return Rank(state, step)


@pytest.mark.parametrize("communicator", [SoloCommunicator(), OfEleven()])
def test_a_frozen_batch_norm_does_not_change_by_a_bit(communicator: Communicator) -> None:
    one = frozen_rank(communicator)
    before = values(one)
    kept = {name for name in before if "/norm/" in name}
    # Its variables are in the file, and nothing else is made of them.
    assert kept == {f"model/norm/{part}" for part in ("gamma", "beta", *STATISTICS)}
    for number in range(5):
        assert one.run(*pictures(2, number), 1).finite
    after = values(one)
    assert all(np.array_equal(before[name], after[name]) for name in kept)
    assert not np.array_equal(before["model/one/kernel"], after["model/one/kernel"])


STATISTICS = ("moving_mean", "moving_variance")


def test_it_normalises_by_its_moving_statistics() -> None:
    one = frozen_rank(SoloCommunicator())
    images = tf.constant(pictures(2, 0)[0])
    model = one.state.model
    assert np.array_equal(model(images, training=True), model(images, training=False))


def test_averaging_what_is_frozen_would_be_noticed() -> None:
    """The negative twin: taken for statistics, the variables go through a mean of the ranks."""
    one = frozen_rank(OfEleven())
    one.state.statistics = list(one.state.model.get_layer("norm").variables)
    optimizer = build_optimizer(SPEC, one.state.trainable)
    step = build_train_step(
        one.state.model, build_loss(LossSpec(), CLASSES), build_update(optimizer, one.state, SPEC),
        one.state, OfEleven(), batch=2, size=SIZE, flags=2,
    )  # fmt: skip
    before = values(one)
    for number in range(5):
        Rank(one.state, step).run(*pictures(2, number), 1)
    after = values(one)
    assert any(not np.array_equal(before[n], after[n]) for n in before if "/norm/" in n)


def test_a_network_without_batch_norm_is_refused() -> None:
    image = keras.Input((*SIZE, 3))
    model = keras.Model(image, keras.layers.Conv2D(CLASSES, 1)(image), name="plain")
    with pytest.raises(ClustersegError, match=r"train\.freeze_batch_norm .* plain has no batch"):
        freeze(model)
