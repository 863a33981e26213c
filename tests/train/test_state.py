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
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import CheckpointHeader, Claim
from clusterseg.spec.model import OptimizerSpec
from clusterseg.train.communicator.solo import SoloCommunicator
from clusterseg.train.failures import TrainingError
from clusterseg.train.optimizers import build_optimizer, singles
from clusterseg.train.restoring import restore
from clusterseg.train.snapshot import Snapshot
from clusterseg.train.state import (
    TrainState,
    check_agreement,
    generator_seeds,
    not_finite,
    tensor_of,
)

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


def test_single_variables_have_the_name_of_their_place_in_the_optimizer() -> None:
    """Keras calls Nadam's by a counter over all variables of the process."""
    found = []
    for _ in range(2):
        variable = keras.Variable([1.0], name="kernel")
        nadam = keras.optimizers.Nadam()
        nadam.build([variable])
        found.append(nadam)
    own = [{one.name for one in nadam.variables} for nadam in found]
    assert own[0] != own[1]  # so there is something to mend
    names = [set(singles(nadam)) for nadam in found]
    assert names == [{"iteration", "learning_rate", "u_product"}] * 2


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


def test_a_resume_writes_every_misfit_into_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunPaths(tmp_path / "run")
    run.checkpoints.mkdir(parents=True)
    there, now = small("adam", classes=5), small("sgd", classes=3)
    info = save(there, run.checkpoints)
    claim = Claim(
        t=0, attempt=1, submission=0, key="k", uid=0, job_id="j", host="h", boot_id="b", pid=1,
        pid_start=1, nonce="n", hosts={"h": 1}, ranks=1, argv=[], accepted={},
        resume_from=info.name, resume_step=1,
    )  # fmt: skip
    with pytest.raises(TrainingError, match=r"does not fit this model: .*; … \(\d+\)$"):
        restore(run, claim, now, SoloCommunicator(), identity={})
    # Besides Adam's two: SGD's momentum has the name of one of them.
    other = {f"{key} is not expected" for key in there.variables if "/velocities/" in key}
    other |= {
        f"{start}/classifier_logits/{part} is F32 {shape}, expected F32 {[*shape[:-1], 3]}"
        for start in ("model", "optimizer/momentums")
        for part, shape in (("bias", [5]), ("kernel", [1, 1, 16, 5]))
    }
    said = {line.removeprefix(f"{info.name}: ") for line in capsys.readouterr().err.splitlines()}
    assert said == other and len(other) > 20


def test_generator_seeds_are_a_function_of_the_position_alone() -> None:
    seeds = generator_seeds(1, 2, 3, 4)
    assert seeds.shape == (4, 2) and seeds.dtype == np.int64
    assert np.array_equal(seeds, generator_seeds(1, 2, 3, 4))
    others = [generator_seeds(*place, 4) for place in ((0, 2, 3), (1, 3, 3), (1, 2, 2))]
    assert not any(np.array_equal(seeds, other) for other in others)
    assert len(np.unique(seeds[:, 0])) == 4 and set(seeds[:, 1]) == {3}
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
    quick = check_agreement(state, Drifted(), "after step 7", quick=True)
    assert quick == "the weights differ between ranks after step 7: rank 2 from rank 0"
    before = state.digest(), state.fingerprint()
    for generator in state.generators.values():
        generator.assign(np.asarray([5, 6]))
    assert (state.digest(), state.fingerprint()) == before
    for variable in state.variables.values():
        if any(variable is one for one in state.generators.values()):
            continue
        value = np.array(variable.numpy())
        other = value.copy()
        other.reshape(-1).view(np.uint8)[-1] ^= 1
        variable.assign(other)
        assert state.digest() != before[0] and state.fingerprint() != before[1], variable.path
        variable.assign(value)
    assert (state.digest(), state.fingerprint()) == before


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int64", "bool"])
def test_variables_of_every_type_have_a_fingerprint(dtype: str) -> None:
    state = small()
    before = state.fingerprint()
    extra: Any = keras.Variable(np.zeros(3), dtype=dtype)
    state.variables["extra"] = extra
    zeros = state.fingerprint()
    extra.assign(np.ones(3))
    assert len({before, zeros, state.fingerprint()}) == 3


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


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_element_that_is_not_finite_is_found_and_large_ones_are_none(
    kind: type, value: float
) -> None:
    # The sum of all of them is beyond float32 and, but for float64, that of half of them is too.
    array = np.full(100_000, min(float(np.finfo(kind).max), 1e38), kind)
    assert not_finite([tensor_of("large", array)]) is None
    array[array.size // 2] = value
    array[0] = -value  # infinities of both signs
    assert not_finite([tensor_of("large", array)]) == "large"
