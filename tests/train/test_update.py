"""What a step does to the variables: ten optimizers, clipping, weight decay, rates of biases."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from clusterseg.runs.checkpoint_file import read_verified
from clusterseg.runs.checkpoints import commit_checkpoint
from clusterseg.runs.records import CheckpointHeader
from clusterseg.spec.model import OptimizerSpec
from clusterseg.spec.tables import OPTIMIZERS
from clusterseg.train.optimizers import build_optimizer
from clusterseg.train.snapshot import Snapshot
from clusterseg.train.state import TrainState
from clusterseg.train.update import build_update, clipped, global_norm

pytestmark = pytest.mark.slow

NAMES = sorted(OPTIMIZERS)
PLAIN = {"sgd": {"momentum": 0.9}, "sgd_nesterov": {"momentum": 0.9, "nesterov": True}}
KERAS = {
    "sgd": "SGD", "sgd_nesterov": "SGD", "adam": "Adam", "adamw": "Adam", "adamax": "Adamax",
    "nadam": "Nadam", "adadelta": "Adadelta", "adagrad": "Adagrad", "rmsprop": "RMSprop",
    "ftrl": "Ftrl",
}  # fmt: skip


class Trained:
    """A small network with every kind of variable, and steps with drawn gradients."""

    def __init__(self, spec: OptimizerSpec) -> None:
        keras.utils.set_random_seed(5)
        image = keras.Input((4, 4, 3))
        x = keras.layers.Conv2D(4, 3, name="full")(image)
        x = keras.layers.DepthwiseConv2D(1, name="depth")(x)
        x = keras.layers.SeparableConv2D(4, 1, name="both")(x)
        x = keras.layers.BatchNormalization(name="norm")(x)
        self.model = keras.Model(image, keras.layers.Conv2D(2, 1, name="last")(x))
        self.optimizer = build_optimizer(spec, self.model.trainable_variables)
        self.state = TrainState(self.model, self.optimizer)
        # In a graph and in a branch, as the step does it.
        update = build_update(self.optimizer, self.state, spec)
        yes = tf.Variable(True)

        @tf.function(autograph=False)  # type: ignore[untyped-decorator]
        def graph(gradients: list[tf.Tensor], rate: tf.Tensor) -> None:
            def apply() -> tf.Tensor:
                update(gradients, rate)
                return tf.constant(True)

            tf.cond(yes, apply, lambda: tf.constant(False))

        self._graph = graph

    def step(self, gradients: list[Any], rate: float = 0.1) -> None:
        self._graph([tf.constant(one) for one in gradients], tf.constant(rate))

    def drawn(self, number: int) -> list[np.ndarray]:
        draw = np.random.default_rng(number)
        return [
            draw.normal(size=one.shape).astype(np.float32) for one in self.model.trainable_variables
        ]

    def zeros(self) -> list[np.ndarray]:
        return [np.zeros(one.shape, np.float32) for one in self.model.trainable_variables]

    def values(self) -> dict[str, np.ndarray]:
        return {name: np.array(one.numpy()) for name, one in self.state.variables.items()}

    def weights(self) -> dict[str, np.ndarray]:
        return {one.path: np.array(one.numpy()) for one in self.model.trainable_variables}


KERNELS = {
    "full/kernel", "depth/kernel", "both/depthwise_kernel", "both/pointwise_kernel", "last/kernel"
}  # fmt: skip
BIASES = {"full/bias", "depth/bias", "both/bias", "last/bias"}


@pytest.mark.parametrize("name", NAMES)
def test_each_optimizer_steps_as_kerass_does(name: str) -> None:
    ours, plain = (Trained(OptimizerSpec(name=name)) for _ in range(2))
    theirs = getattr(keras.optimizers, KERAS[name])(0.1, **PLAIN.get(name, {}))
    theirs.build(plain.model.trainable_variables)

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def apply(gradients: list[tf.Tensor]) -> None:
        theirs.apply(gradients, plain.model.trainable_variables)

    begin = ours.weights()
    for number in range(5):
        ours.step(ours.drawn(number))
        apply([tf.constant(one) for one in ours.drawn(number)])
    for path, value in plain.weights().items():
        assert np.array_equal(ours.weights()[path], value), path
        assert not np.array_equal(begin[path], value), path


LATER = """
import sys
import keras
import numpy as np
from pathlib import Path
from clusterseg.runs.checkpoint_file import read_verified
from clusterseg.spec.model import OptimizerSpec
from tests.train.test_update import Trained, NAMES

for number in range(3):  # moves Keras' process-wide counters
    keras.optimizers.Nadam().build([keras.Variable([1.0])])
for name in NAMES:
    one = Trained(OptimizerSpec(name=name, momentum=0.8))
    file = next((Path(sys.argv[1]) / name).glob("*.safetensors"))
    one.state.load(file.name, *read_verified(file))
    one.step(one.drawn(9))
    np.savez(file.with_suffix(".npz"), **one.values())
"""


def test_all_state_of_all_optimizers_comes_back_in_another_process(tmp_path: Path) -> None:
    wanted = {}
    for name in NAMES:
        one = Trained(OptimizerSpec(name=name, momentum=0.8))
        for number in range(3):
            one.step(one.drawn(number))
        header = CheckpointHeader(epoch=0, step=3, step_in_epoch=3, attempt=0, t=0)
        file = "weights-0000-0.0000-step-000000003.safetensors"
        (tmp_path / name).mkdir()
        commit_checkpoint(tmp_path / name, file, header, Snapshot(one.state).take(), accepted={})
        names = set(read_verified(tmp_path / name / file)[0].tensors)
        assert not {each for each in names if each.startswith("optimizer/variable")}
        assert ("optimizer/u_product" in names) == (name == "nadam")
        one.step(one.drawn(9))
        wanted[name] = one.values()
    top = Path(__file__).resolve().parents[2]
    subprocess.run(
        [sys.executable, "-c", LATER, str(tmp_path)], check=True, cwd=top, env={**os.environ}
    )
    for name, values in wanted.items():
        (file,) = (tmp_path / name).glob("*.npz")
        found = np.load(file)
        assert set(found) == set(values)
        for key, value in values.items():
            assert np.array_equal(found[key], value), (name, key)


def test_nadams_product_is_state(tmp_path: Path) -> None:
    """The negative twin: without it the next step is another one."""
    one, other = (Trained(OptimizerSpec(name="nadam")) for _ in range(2))
    for number in range(3):
        one.step(one.drawn(number))
    for key, variable in other.state.variables.items():
        if key != "optimizer/u_product":
            variable.assign(one.state.variables[key].numpy())
    for each in (one, other):
        each.step(one.drawn(9))
    assert not np.array_equal(one.weights()["last/kernel"], other.weights()["last/kernel"])


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_weight_decay_is_for_kernels_alone(name: str) -> None:
    spec = OptimizerSpec(name=name, momentum=0.0, weight_decay=0.25)
    one = Trained(spec)
    before = one.weights()
    one.step(one.zeros())
    after = one.weights()
    changed = {path for path in before if not np.array_equal(before[path], after[path])}
    assert changed == KERNELS
    for path in KERNELS if name != "adam" else ():  # with a rate of 0.1
        np.testing.assert_allclose(after[path], before[path] * (1 - 0.1 * 0.25), rtol=1e-5)


def test_decoupled_decay_and_an_l2_penalty_differ_where_gradients_are_scaled() -> None:
    """Adam normalises the penalty's gradient: |step| is about the rate, whatever the decay."""
    steps = {}
    for name in ("adam", "adamw"):
        one = Trained(OptimizerSpec(name=name, weight_decay=1e-3))
        before = one.weights()["full/kernel"]
        one.step(one.zeros())
        steps[name] = np.abs(one.weights()["full/kernel"] - before)
    assert np.median(steps["adam"]) > 0.09
    assert steps["adamw"].max() < 1e-3


@pytest.mark.parametrize("norm", [0.5, 1e6])
def test_gradients_are_clipped_by_their_global_norm(norm: float) -> None:
    gradients = [tf.constant(one) for one in Trained(OptimizerSpec()).drawn(1)]
    wanted, _ = tf.clip_by_global_norm(gradients, norm)
    found = clipped(gradients, global_norm(gradients), norm)
    for ours, theirs, before in zip(found, wanted, gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
        assert np.array_equal(ours, before) == (norm == 1e6)


def test_clipping_comes_before_decay_and_bears_huge_gradients() -> None:
    spec = OptimizerSpec(name="sgd", momentum=0.0, clip_norm=1.0, weight_decay=0.25)
    one, other = Trained(spec), Trained(spec)
    before = one.weights()
    huge = [np.full_like(each, 1e30) for each in one.zeros()]
    one.step(huge)
    count = sum(each.size for each in huge)
    for path, value in one.weights().items():
        decay = 0.25 * before[path] if path in KERNELS else 0
        wanted = before[path] - 0.1 * (1 / np.sqrt(count) + decay)
        np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-6, err_msg=path)
    other.step(other.zeros())  # a norm of 0 divides by nothing
    assert all(np.isfinite(value).all() for value in other.weights().values())


NORM = """
import sys
import numpy as np, tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(int(sys.argv[1]))
from clusterseg.models.sums import ordered_sum
from clusterseg.train.update import clipped, global_norm
draw = np.random.default_rng(0)
sizes = (3_000_017, 4096, 1, 5000)
gradients = [tf.constant(draw.normal(size=size).astype(np.float32)) for size in sizes]
found = clipped(gradients, global_norm(gradients), 1e-3)
print(b"".join(one.numpy().tobytes() for one in found).__hash__())
squares = tf.square(tf.cast(gradients[0], tf.float64))
print(ordered_sum(squares).numpy().hex(), tf.reduce_sum(squares).numpy().hex())
"""


def test_a_rank_with_more_threads_clips_to_the_same_bits() -> None:
    """TensorFlow's own sum, the negative twin, is cut into as many parts as there are threads."""
    found = []
    for threads in (1, 3):
        argv = [sys.executable, "-c", NORM, str(threads)]
        same_hashes = {**os.environ, "PYTHONHASHSEED": "0"}
        done = subprocess.run(argv, check=True, capture_output=True, text=True, env=same_hashes)
        found.append(done.stdout.split())
    (clips, ours, plain), others = found
    assert [clips, ours] == others[:2]
    assert plain != others[2]


@pytest.mark.parametrize("name", NAMES)
def test_biases_have_a_rate_of_their_own(name: str) -> None:
    """As if the whole network had that rate, for the biases; as without, for the rest."""
    plain, fast = (Trained(OptimizerSpec(name=name)) for _ in range(2))
    one = Trained(OptimizerSpec(name=name, bias_multiplier=2.0))
    for number in range(3):
        gradients = one.drawn(number)
        one.step(gradients)
        plain.step(gradients)
        fast.step(gradients, rate=0.2)
    assert {path for path in one.weights() if path.endswith("bias")} == BIASES
    for path, value in one.weights().items():
        like, unlike = (fast, plain) if path in BIASES else (plain, fast)
        np.testing.assert_allclose(value, like.weights()[path], rtol=1e-5, atol=1e-7, err_msg=path)
        assert not np.allclose(value, unlike.weights()[path], rtol=1e-5, atol=1e-7), path
