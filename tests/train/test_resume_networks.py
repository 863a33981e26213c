"""Networks with layers of their own kind resume bit for bit too: quantised ones, and unpooling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from clusterseg.spec.model import TrainSpec
from clusterseg.train import waiting, wishes
from clusterseg.train.assembly import assemble
from clusterseg.train.communicator.solo import SoloCommunicator
from tests.train.attempts import Attempts, StopAt
from tests.train.runs import Run, job

pytestmark = pytest.mark.slow

STEPS = 5


@pytest.fixture(autouse=True)
def _agree_at_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a validation: by the clock, looks could not be counted."""
    monkeypatch.setattr(waiting, "CADENCE", 0.0)


@pytest.mark.parametrize(
    ("name", "options", "precision"),
    [
        ("lmsegnet", {}, "float32"),
        pytest.param("lmsegnet", {"quantize_first": True}, "bfloat16", marks=pytest.mark.proof),
        pytest.param("bayes_segnet", {"width": 0.1}, "float32", marks=pytest.mark.proof),
    ],
)
def test_a_run_that_was_stopped_twice_ends_like_one_that_was_not(
    name: str,
    options: dict[str, Any],
    precision: str,
    data: Path,
    tmp_path: Path,
) -> None:
    spec = job(
        data,
        model={"name": name, "options": options},
        precision=precision,
        optimizer={"name": "adam", "learning_rate": 0.003, "weight_decay": 1e-4},
        epochs=1,
        steps_per_epoch=STEPS,
        ema=0.8,
    )
    spec["train"]["data"]["size"] = [16, 24]
    train = msgspec.convert(spec["train"], TrainSpec)
    assembly = assemble(train, SoloCommunicator(), flags=wishes.COUNT, threads=1)
    fresh = {name: np.array(one.numpy()) for name, one in assembly.state.variables.items()}
    whole = Attempts(Run(tmp_path / "whole", spec), assembly, fresh)
    assert whole.attempt() is None
    stopped = Attempts(Run(tmp_path / "stopped", spec), assembly, fresh)
    assert stopped.attempt(StopAt(2)) == "SIGUSR1"
    assert stopped.attempt(StopAt(2)) == "SIGUSR1"
    assert stopped.attempt() is None
    assert stopped.steps(2) != list(range(1, STEPS + 1))  # it went on, and did not begin anew
    assert stopped.final() == whole.final()
    learnt = whole.final()[0]
    assert learnt != b"".join(one.tobytes() for one in fresh.values())
