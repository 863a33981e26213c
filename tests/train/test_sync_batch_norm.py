"""Synchronised batch norm: ranks with a part each step as one rank with the whole batch."""

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

from clusterseg.errors import ClustersegError
from clusterseg.losses import build_loss
from clusterseg.models.layers import batch_norm
from clusterseg.spec.model import LossSpec, OptimizerSpec
from clusterseg.train.batch_norm import synchronise
from clusterseg.train.communicator import Communicator
from clusterseg.train.communicator.solo import SoloCommunicator
from clusterseg.train.optimizers import build_optimizer
from clusterseg.train.state import TrainState
from clusterseg.train.step import build_train_step
from clusterseg.train.update import build_update
from tests.train.runs import BIN
from tests.train.test_step import CLASSES, SIZE, Rank, pictures, values

pytestmark = pytest.mark.slow

BATCH, STEPS = 4, 6
SPEC = OptimizerSpec(name="sgd", momentum=0.9)

# Each rank: the same steps synchronised, with sums whose gradient stays on the rank, and alone.
RANKS = """
import os, sys
from pathlib import Path
from clusterseg.runs.rank_files import RankPlace
from clusterseg.train.communicator import connect
from clusterseg.train.devices import prepare_tensorflow
one = int(os.environ["OMPI_COMM_WORLD_RANK"])
communicator = connect(sys.argv[1], RankPlace(rank=one, world_size=2, local_rank=one), 2)
prepare_tensorflow(1, deterministic=True)
from tests.train.test_sync_batch_norm import rank_program  # after it: it makes variables
rank_program(communicator, Path(sys.argv[2]))
communicator.close()
"""


def branched(communicator: Communicator, batch: int, *, synchronised: bool) -> Rank:
    """Batch norms one behind the other and, as in Fast-SCNN, beside each other."""
    keras.utils.set_random_seed(5)
    image = keras.Input((*SIZE, 3))
    x = keras.layers.Conv2D(6, 3, padding="same", name="stem")(image)
    x = keras.layers.ReLU()(batch_norm(x, name="stem_bn"))
    branches = []
    for number in range(3):
        y = keras.layers.Conv2D(4, 3, padding="same", name=f"branch_{number}")(x)
        branches.append(batch_norm(y, name=f"branch_{number}_bn"))
    x = keras.layers.ReLU()(keras.layers.Add()(branches))
    model = keras.Model(image, keras.layers.Conv2D(CLASSES, 1, name="logits")(x))
    if synchronised:
        synchronise(model, communicator)
    optimizer = build_optimizer(SPEC, model.trainable_variables)
    state = TrainState(model, optimizer)
    step = build_train_step(
        model, build_loss(LossSpec(), CLASSES), build_update(optimizer, state, SPEC), state,
        communicator, batch=batch, size=SIZE, flags=2,
    )  # fmt: skip
    return Rank(state, step)


def batches() -> list[tuple[np.ndarray, np.ndarray]]:
    """Of which the two halves are unlike each other, in colour and in number of labels."""
    found = []
    for number in range(STEPS):
        images, labels = pictures(BATCH, number)
        images[: BATCH // 2] = images[: BATCH // 2] * 3 + 2
        labels[0] = 255
        found.append((images, labels))
    return found


def trained(one: Rank, part: slice) -> dict[str, np.ndarray]:
    for images, labels in batches():
        assert one.run(images[part], labels[part], len(images[part]), rate=0.05).finite
    return values(one)


def one_way(communicator: Communicator) -> Any:
    """As `sum_with_gradient`, but each rank keeps its own gradient."""

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def summed(vector: tf.Tensor) -> Any:
        return communicator._sum_in_turn(vector), lambda gradient: gradient

    return summed


def rank_program(communicator: Communicator, folder: Path) -> None:
    half = BATCH // 2
    part = slice(communicator.rank * half, (communicator.rank + 1) * half)
    found = {
        "synchronised": trained(branched(communicator, half, synchronised=True), part),
        "alone": trained(branched(communicator, half, synchronised=False), part),
    }
    communicator.sum_with_gradient = one_way(communicator)  # type: ignore[method-assign]
    found["one way"] = trained(branched(communicator, half, synchronised=True), part)
    for name, state in found.items():
        np.savez(folder / f"{name} {communicator.rank}.npz", **state)


def farthest(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> float:
    """The largest difference of a weight or statistic, relative to the largest in its tensor."""
    assert found.keys() == wanted.keys()
    return max(
        float(np.abs(found[name] - value).max() / max(np.abs(value).max(), 1e-3))
        for name, value in wanted.items()
        if name.startswith("model/")
    )


@pytest.mark.parametrize(
    "communicator", ["mpi", pytest.param("horovod", marks=pytest.mark.horovod)]
)
def test_two_ranks_step_like_one_with_the_whole_batch(communicator: str, tmp_path: Path) -> None:
    """And they do not, the negative twins, without it or without its gradient."""
    mpirun = [str(BIN / "mpirun"), "-np", "2", "--map-by", ":OVERSUBSCRIBE", "--bind-to", "none"]
    root = ["--allow-run-as-root"] if os.getuid() == 0 else []
    done = subprocess.run(
        [*mpirun, *root, sys.executable, "-c", RANKS, communicator, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    wanted = trained(branched(SoloCommunicator(), BATCH, synchronised=True), slice(None))
    apart = {}
    for name in ("synchronised", "alone", "one way"):
        ranks = [dict(np.load(tmp_path / f"{name} {rank}.npz")) for rank in (0, 1)]
        for key, value in ranks[0].items():
            assert np.array_equal(value, ranks[1][key]), key
        apart[name] = farthest(ranks[0], wanted)
    assert apart["synchronised"] < 1e-4
    assert min(apart["alone"], apart["one way"]) > 0.01


class Two(SoloCommunicator):
    """One of two ranks that read the same."""

    size = 2

    def __init__(self) -> None:
        self.names: list[str] = []

    def _sum_in_graph(self, vector: tf.Tensor, name: str = "step") -> tf.Tensor:
        self.names.append(name)
        return 2 * vector


def test_one_rank_has_the_whole_batch_already_and_equal_ranks_as_well() -> None:
    part = slice(0, 2)
    plain = trained(branched(SoloCommunicator(), 2, synchronised=False), part)
    alone = trained(branched(SoloCommunicator(), 2, synchronised=True), part)
    assert all(np.array_equal(value, alone[name]) for name, value in plain.items())
    assert farthest(trained(branched(Two(), 2, synchronised=True), part), plain) < 1e-4


class AtOnce(Two):
    """The negative twin of taking turns."""

    def _sum_in_turn(self, vector: tf.Tensor) -> tf.Tensor:
        return self._sum_in_graph(vector)


@pytest.mark.parametrize(("kind", "turns"), [(Two, True), (AtOnce, False)])
def test_sums_wait_for_each_other_and_have_names_of_their_own(kind: type[Two], turns: bool) -> None:
    """So ranks can't get them in another order, however their threads run."""
    one = kind()

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def graph(vector: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(vector)
            sums = [one.sum_with_gradient(vector * factor) for factor in (1.0, 2.0, 3.0)]
            total = tf.reduce_sum(tf.add_n(sums))
        return tape.gradient(total, vector)

    vector = tf.constant([1.0, 5.0])
    assert np.array_equal(graph(vector), [2 * (1 + 2 + 3)] * 2)
    operations = graph.get_concrete_function(vector).graph.get_operations()
    waiting = sum(bool(each.control_inputs) for each in operations)
    assert waiting >= 5 if turns else waiting == 0
    assert one.names == [f"part-{number}" if turns else "step" for number in range(6)]


def test_a_network_without_batch_norm_is_refused() -> None:
    image = keras.Input((*SIZE, 3))
    model = keras.Model(image, keras.layers.Conv2D(CLASSES, 1)(image), name="plain")
    with pytest.raises(ClustersegError, match=r"train\.sync_batch_norm .* plain has no batch"):
        synchronise(model, SoloCommunicator())
