"""Variables by name: written, read back, compared between ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from safetensors import safe_open

from clusterseg.models import build_model
from clusterseg.runs.checkpoint_file import read_verified
from clusterseg.runs.checkpoints import CheckpointError, CheckpointInfo, commit_checkpoint
from clusterseg.runs.records import CheckpointHeader
from clusterseg.spec.model import OptimizerSpec
from clusterseg.train.communicator.solo import SoloCommunicator
from clusterseg.train.optimizers import build_optimizer
from clusterseg.train.snapshot import Snapshot
from clusterseg.train.state import TrainState, check_agreement, generator_seeds

pytestmark = pytest.mark.slow


def small(optimizer: str = "sgd", classes: int = 3) -> TrainState:
    model = build_model("fastscnn", classes, (32, 32), width=0.1)
    return TrainState(
        model, build_optimizer(OptimizerSpec(name=optimizer), model.trainable_variables)
    )


def save(state: TrainState, folder: Path) -> CheckpointInfo:
    header = CheckpointHeader(epoch=0, step=1, step_in_epoch=1, attempt=0, t=0)
    name = "weights-0000-0.0000-step-000000001.safetensors"
    return commit_checkpoint(folder, name, header, Snapshot(state).take(), accepted={})


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_file_brings_every_variable_to_a_model_built_later(
    tmp_path: Path, optimizer: str
) -> None:
    one = small(optimizer)
    draw = np.random.default_rng(1)
    for variable in one.variables.values():
        variable.assign(draw.uniform(0, 100, variable.shape).astype(variable.numpy().dtype))
    info = save(one, tmp_path)
    keras.layers.Dropout(0.5)  # moves Keras' process-wide counters
    other = small(optimizer)
    assert other.digest() != one.digest()
    other.load(info.name, *read_verified(info.path))
    assert other.digest() == one.digest()
    assert list(other.variables) == list(one.variables)
    for name, variable in one.variables.items():
        assert np.array_equal(variable.numpy(), other.variables[name].numpy()), name


def test_everything_is_in_the_file_by_structural_names(tmp_path: Path) -> None:
    info = save(small("adam"), tmp_path)
    with safe_open(info.path, framework="numpy") as file:
        names = set(file.keys())
    rooms = {name.split("/")[0] for name in names}
    assert rooms == {"model", "optimizer", "generator"}
    assert {
        "model/classifier_logits/kernel",
        "model/downsample_0_bn/moving_variance",
        "optimizer/momentums/classifier_logits/kernel",
        "optimizer/velocities/classifier_logits/kernel",
        "optimizer/iteration",
        "optimizer/learning_rate",
        "generator/classifier_dropout/0",
    } <= names


def test_every_misfit_is_named(tmp_path: Path) -> None:
    info = save(small("adam", classes=5), tmp_path)
    with pytest.raises(CheckpointError) as caught:
        small("sgd", classes=3).load(info.name, *read_verified(info.path))
    said = caught.value.message
    assert "optimizer/velocities/classifier_logits/bias is not expected" in said
    assert "(" in said.rpartition("…")[2]  # how many there are in all
    with pytest.raises(CheckpointError) as caught:
        small("adam", classes=3).load(info.name, *read_verified(info.path))
    assert "model/classifier_logits/bias is F32 [5], expected F32 [3]" in caught.value.message


def test_generator_seeds_are_a_function_of_the_position_alone() -> None:
    seeds = generator_seeds(1, 2, 3, 4)
    assert seeds.shape == (4, 2) and seeds.dtype == np.int64
    assert np.array_equal(seeds, generator_seeds(1, 2, 3, 4))
    others = [generator_seeds(*place, 4) for place in ((0, 2, 3), (1, 3, 3), (1, 2, 2))]
    assert not any(np.array_equal(seeds, other) for other in others)
    assert len(np.unique(seeds)) == 8
    assert seeds.min() >= 0 and seeds.max() < 2**31 - 2


class Drifted(SoloCommunicator):
    """Three ranks, of which the last one computes otherwise."""

    size = 3

    def gather(self, value: int) -> list[int]:
        return [value, value, value + 1]


def test_a_rank_that_drifted_is_named_and_generators_may_differ() -> None:
    state = small()
    assert check_agreement(state, SoloCommunicator(), "now") is None
    problem = check_agreement(state, Drifted(), "after epoch 2")
    assert problem == "the weights differ between ranks after epoch 2: rank 2 from rank 0"
    before = state.digest()
    for generator in state.generators.values():
        generator.assign(np.asarray([5, 6]))
    assert state.digest() == before
    variable: Any = state.trainable[0]
    variable.assign(variable + 1e-6)
    assert state.digest() != before


def test_a_copy_is_of_its_moment_and_its_memory_is_used_again() -> None:
    state = small("adam")
    snapshot = Snapshot(state)
    snapshot.prepare()
    first = snapshot.take()
    then = {one.name: bytes(one.data) for one in first}
    assert then == {name: one.numpy().tobytes() for name, one in state.variables.items()}
    assert snapshot.bytes == sum(map(len, then.values()))
    for variable in state.variables.values():
        variable.assign(variable.numpy() + 1)
    assert {one.name: bytes(one.data) for one in first} == then
    second = snapshot.take()
    assert {one.name: bytes(one.data) for one in second} != then
    places = [np.frombuffer(one.data, np.uint8).ctypes.data for one in first]
    assert places == [np.frombuffer(one.data, np.uint8).ctypes.data for one in second]
