"""Every loss in a training: in 16 bits, in one graph on several ranks, on a real job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clusterseg.data.synth.recipe import Recipe
from clusterseg.data.synth.write import write_dataset
from clusterseg.losses import build_loss, loss_names
from clusterseg.runs.checkpoint_file import read_verified
from clusterseg.runs.checkpoints import list_checkpoints
from clusterseg.runs.records import Epoch
from clusterseg.spec.model import LossSpec, OptimizerSpec
from clusterseg.train.optimizers import build_optimizer
from clusterseg.train.precision import policy
from clusterseg.train.state import TrainState
from clusterseg.train.step import build_train_step
from clusterseg.train.update import build_update
from tests.train.runs import Run, job
from tests.train.test_step import CLASSES, NOBODY, SIZE, Rank, Recorder, network, pictures

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ADAM = OptimizerSpec(name="adam")
NETWORK = {"name": "unet", "options": {"base_filters": 4, "head_filters": None, "dropout": 0.0}}


def losses(name: str, precision: str) -> list[float]:
    """Of 20 steps on one batch, in which ranks add their sums up: where float16 needs its scale."""
    with policy(precision):
        model = network(norm=True)
    optimizer = build_optimizer(ADAM, model.trainable_variables)
    state = TrainState(model, optimizer, scaled=precision == "float16")
    step = build_train_step(
        model, build_loss(LossSpec(name=name), CLASSES), build_update(optimizer, state, ADAM),
        state, Recorder(NOBODY), batch=2, size=SIZE, flags=2,
    )  # fmt: skip
    one, (images, labels) = Rank(state, step), pictures(2, 0)
    labels[0, 0] = 255
    found = []
    for _ in range(20):
        outcome = one.run(images, labels, 2, rate=0.02)
        assert outcome.finite and outcome.weight_sum > 0
        found.append(outcome.loss_sum / outcome.weight_sum)
    return found


@pytest.mark.parametrize("name", loss_names())
def test_it_falls_in_half_precision_as_in_single(name: str) -> None:
    single, half = losses(name, "float32"), losses(name, "float16")
    assert single[-1] < 0.9 * single[0]
    np.testing.assert_allclose(half, single, rtol=0.05)


def weights(run: Run) -> dict[str, np.ndarray]:
    layout, content = read_verified(list_checkpoints(run.paths.checkpoints)[-1].path)
    return {
        name: np.frombuffer(content[slot.begin : slot.end], np.float32).reshape(slot.shape)
        for name, slot in layout.tensors.items()
        if slot.dtype == "F32"
    }


def close(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    assert one.keys() == other.keys()
    return all(np.allclose(one[name], other[name], rtol=1e-3, atol=1e-6) for name in one)


def trained(root: Path, data: Path, ranks: int, **train: Any) -> Run:
    values = job(
        data,
        model=NETWORK,
        epochs=1,
        loss={"class_weights": "batch"},
        optimizer={"name": "sgd", "learning_rate": 0.05, "scale_with_ranks": False},
        schedule={},
        **train,
    )
    run = Run(root, values, ranks=ranks, communicator="mpi" if ranks > 1 else "solo")
    assert run.run() == 0, run.log()
    return run


@pytest.mark.proof
def test_weights_of_a_batch_are_counted_on_all_ranks(data: Path, tmp_path: Path) -> None:
    """Two ranks train as one with the whole batch; two micro-batches have their own counts."""
    alone = weights(trained(tmp_path / "one", data, 1, batch_size=8))
    together = weights(trained(tmp_path / "two", data, 2, batch_size=4))
    assert close(together, alone)
    apart = weights(trained(tmp_path / "apart", data, 1, batch_size=4, accumulate=2))
    assert not close(apart, alone)


def test_a_job_on_coarse_cityscapes_mines_hard_pixels(tmp_path: Path) -> None:
    root = tmp_path / "city"
    recipe = Recipe(format="cityscapes", train=3, val=2, test=0, size=(64, 96), seed=0, extra=3)
    write_dataset(recipe, root)
    values = job(
        root,
        augment=[
            {"flip_horizontal": 0.5},
            {"rotate": 10.0},
            {"random_resized_crop": {"scale": [0.3, 1.0]}},
            {"hue": 0.04},
            {"blur": 1.0},
        ],
        loss={"name": "ohem", "options": {"top_k": 0.3, "mining_steps": 4}},
        epochs=2,
        batch_size=2,
        precision="float16",
    )
    values["train"]["data"] = {
        "format": "cityscapes", "root": str(root), "size": [32, 48], "coarse": True,
    }  # fmt: skip
    run = Run(tmp_path / "run", values)
    assert run.run() == 0, run.log()
    epochs = [one for one in run.events() if isinstance(one, Epoch)]
    assert [one.step for one in epochs] == [3, 6]  # 3 fine and 3 coarse pictures
    for one in epochs:
        assert one.val_loss is not None and np.isfinite(one.val_loss)
        assert one.val_mean_iou is not None and 0 <= one.val_mean_iou <= 1
