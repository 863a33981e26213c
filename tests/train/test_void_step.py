"""A step that a rank has no data for: it changes nothing at all, whoever it is that has none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from clusterseg.spec.model import TrainSpec
from clusterseg.train import wishes
from clusterseg.train.assembly import Assembly, assemble
from clusterseg.train.batches import no_batch, step_batches
from clusterseg.train.communicator.solo import SoloCommunicator
from clusterseg.train.state import generator_seeds
from clusterseg.train.step import StepOutcome
from clusterseg.train.stopping import SOURCES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


class OfTwo(SoloCommunicator):
    """One of two ranks; what the other one wishes is added to its flags."""

    size = 2
    other = np.zeros(wishes.COUNT, np.float32)

    def _sum_in_graph(self, vector: Any, name: str = "step") -> Any:
        import tensorflow as tf

        def add(own: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            total = own.copy()
            total[-wishes.COUNT :] += self.other
            return total

        return tf.numpy_function(add, [vector], tf.float32, stateful=True)


@pytest.fixture(scope="module")
def built(data: Path) -> tuple[Assembly, OfTwo, TrainSpec]:
    """With all that a step moves: slots, statistics, averages, a scale of the loss, dropout; and
    with two batches a step."""
    from tests.train.runs import job

    optimizer = {"name": "adam", "learning_rate": 0.001}
    keys = job(data, optimizer=optimizer, precision="float16", ema=0.9, accumulate=2)
    spec = msgspec.convert(keys["train"], TrainSpec)
    other = OfTwo()
    return assemble(spec, other, flags=wishes.COUNT, threads=1), other, spec


def values(assembly: Assembly) -> dict[str, bytes]:
    return {name: one.numpy().tobytes() for name, one in assembly.state.variables.items()}


def step(assembly: Assembly, batch: Any, number: int, **own: bool) -> StepOutcome:
    return assembly.train_step(
        batch.images,
        batch.labels,
        real=batch.real,
        learning_rate=0.001,
        seeds=generator_seeds(0, number, 0, len(assembly.state.generators)),
        flags=wishes.pack([False] * len(SOURCES), **own),
    )


def test_it_changes_no_variable_whoever_has_no_data(built: Any) -> None:
    assembly, other, spec = built
    with step_batches(spec, assembly, epoch=0, first=0, rank=0) as batches:
        batch = batches.current(lambda waited: False)
    assembly.state.variables["scale/value"].assign(64.0)  # at which nothing overflows
    assert step(assembly, batch, 0).finite
    before = values(assembly)
    assert {name.split("/")[0] for name in before} == {
        "model", "optimizer", "ema", "scale", "generator",
    }  # fmt: skip

    own = step(assembly, no_batch(assembly), 1, void=True)
    assert wishes.unpack(own.flags).void and values(assembly) == before

    other.other = wishes.pack([False, True, False], void=True)
    try:
        theirs = wishes.unpack(step(assembly, batch, 1).flags)
    finally:
        del other.other
    assert theirs == wishes.Agreed([False, True, False], void=True)
    assert values(assembly) == before

    # Neither does one that is not finite besides: it would lower the scale.
    bad = type(batch)(batch.images * float("nan"), batch.labels, batch.real)
    step(assembly, bad, 1, void=True)
    assert values(assembly) == before
    # The twin: the same without the wish changes something of each kind.
    step(assembly, bad, 1)
    assert {name for name, value in values(assembly).items() if before[name] != value} == {
        "scale/value", "scale/good_steps", *(name for name in before if "generator" in name),
    }  # fmt: skip
    step(assembly, batch, 1)
    changed = {
        name.split("/")[0] for name, value in values(assembly).items() if before[name] != value
    }
    assert changed == {"model", "optimizer", "ema", "scale", "generator"}
