"""A run that goes on with another number of ranks: the same samples, and the same weights as far as
sums in another order allow; by choice with another global batch, and each sample still once."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from clusterseg.runs.checkpoint_file import read_verified
from clusterseg.runs.checkpoints import list_checkpoints
from clusterseg.runs.control import request_stop
from clusterseg.runs.records import CheckpointHeader
from clusterseg.spec.model import TrainSpec
from tests.train.attempts import Attempts, StopAt
from tests.train.runs import Run, job

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

STEPS = 15  # 3 epochs of 5
PATIENCE = 240  # seconds for something to happen on a busy machine
# Dropout, and no batch norm: its statistics are those of the pictures that a rank sees together.
NETWORK = {"name": "unet", "options": {"base_filters": 4, "head_filters": None, "dropout": 0.3}}


def values(data: Path, **train: Any) -> dict[str, Any]:
    spec = job(data, **{"model": NETWORK, "epochs": 3, **train})
    spec["checkpoint"] = {"every": {"steps": 1}, "keep_last": 2, "keep_best": 0}
    return spec


def two_ranks(root: Path, data: Path, **train: Any) -> Run:
    return Run(root, values(data, **train), ranks=2, communicator="mpi")


def newest(run: Run) -> tuple[CheckpointHeader, dict[str, np.ndarray]]:
    """Header and float32 tensors, by name."""
    layout, content = read_verified(list_checkpoints(run.paths.checkpoints)[-1].path)
    return layout.header, {
        name: np.frombuffer(content[slot.begin : slot.end], np.float32).reshape(slot.shape)
        for name, slot in layout.tensors.items()
        if slot.dtype == "F32"
    }


def steps_of(run: Run) -> dict[int, tuple[int, float, float]]:
    """Of each step: images on all ranks, the loss, the learning rate; a window is a step here."""
    found: dict[int, tuple[int, float, float]] = {}
    for attempt, claim in enumerate(run.claims):
        windows = [run.windows(rank, attempt) for rank in range(claim.ranks)]
        for together in zip(*windows, strict=True):
            one = together[0]
            assert one.count == 1 and one.loss is not None and one.learning_rate is not None
            assert one.step not in found
            images = sum(each.images for each in together)
            found[one.step] = (images, one.loss, one.learning_rate)
    return found


def stop_inside_an_epoch(run: Run) -> CheckpointHeader:
    for _ in range(4):
        before = list_checkpoints(run.paths.checkpoints)
        process = run.start()
        deadline = time.monotonic() + PATIENCE
        while not run.windows(0):
            assert process.poll() is None and time.monotonic() < deadline, run.log()
            time.sleep(0.01)
        request_stop(run.paths.stop_file(run.attempt), "requested")
        assert process.wait(PATIENCE) == 75, run.log()
        header = newest(run)[0]
        if header.step_in_epoch > 0:
            return header
        assert list_checkpoints(run.paths.checkpoints) != before
    raise AssertionError("it always stopped at an epoch's end")


def close(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    assert one.keys() == other.keys()
    return all(np.allclose(one[name], other[name], rtol=1e-4, atol=1e-6) for name in one)


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two ranks from the beginning to the end."""
    run = two_ranks(tmp_path_factory.mktemp("whole") / "run", data)
    assert run.run() == 0, run.log()
    return run


def test_two_ranks_stopped_and_gone_on_with_one_end_alike(
    whole: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = two_ranks(tmp_path / "run", data)
    stopped = stop_inside_an_epoch(run)
    assert (stopped.global_batch, stopped.world_size) == (8, 2)
    assert stopped.samples_in_epoch == 8 * stopped.step_in_epoch
    kept = tmp_path / "kept"
    shutil.copytree(run.root, kept)

    run.ranks, run.communicator = 1, "solo"
    assert run.run() == 0, run.log()
    assert (
        "1 rank, there were 2: the global batch stays 8 (1 rank × 2 batches of 4 images)"
        in run.log()
    )
    header, weights = newest(run)
    assert (header.step, header.global_batch, header.world_size) == (STEPS, 8, 1)
    assert close(weights, newest(whole)[1])
    # Each step had as many images, their loss, and the rate of two ranks.
    expected, found = steps_of(whole), steps_of(run)
    assert list(found) == list(expected) == list(range(1, STEPS + 1))
    for step, (images, loss, rate) in expected.items():
        assert found[step][0] == images and found[step][2] == rate
        assert found[step][1] == pytest.approx(loss, rel=1e-4)

    # The twin: masks that belong to another place in the global batch.
    from clusterseg.train.batching import Batching, choose

    monkeypatch.setattr(Batching, "first_of", lambda self, rank: 4)
    other = Run(kept, run.spec, claims=run.claims[:-1], attempt=run.attempt - 1)
    spec = msgspec.convert(other.spec["train"], TrainSpec)
    gone_on(other, spec, choose(spec, 1, stopped))
    header, weights = newest(other)
    assert header.step == STEPS and not close(weights, newest(whole)[1])


def gone_on(run: Run, spec: TrainSpec, batching: Any, stops: Any = None) -> str | None:
    """The next attempt of `run`, alone and in this process, on an assembly of its own."""
    from clusterseg.train import wishes
    from clusterseg.train.assembly import assemble
    from clusterseg.train.communicator.solo import SoloCommunicator

    assembly = assemble(spec, SoloCommunicator(), flags=wishes.COUNT, threads=1, batching=batching)
    fresh = {name: np.array(one.numpy()) for name, one in assembly.state.variables.items()}
    return Attempts(run, assembly, fresh).attempt(stops)


def test_an_epoch_goes_on_with_larger_steps_and_reads_every_sample_once(
    data: Path, tmp_path: Path
) -> None:
    before = msgspec.convert(values(data)["train"], TrainSpec)
    run = Run(tmp_path / "run", values(data))
    from clusterseg.train.batching import choose, fresh

    assert gone_on(run, before, fresh(before, 1), StopAt(3)) == "SIGUSR1"
    header = newest(run)[0]
    assert (header.step, header.samples_in_epoch) == (3, 12)
    run.spec = values(data, batch_size=8, epochs=2)
    after = msgspec.convert(run.spec["train"], TrainSpec)
    assert gone_on(run, after, choose(after, 1, header)) is None
    steps = steps_of(run)
    # 12 samples in steps of 4, the other 24 of the first epoch in steps of 8, then 36 in eights.
    assert [images for images, _, _ in steps.values()] == [4] * 3 + [8] * 3 + [8] * 4 + [4]
    rates = [rate for _, _, rate in steps.values()]
    # Warm-up over half an epoch, then 1 - p to 0: twice the rate for twice the images.
    left = [1 - (step - 2) / (10 - 2) for step in (2, 3, 4)]
    assert rates[3:6] == pytest.approx([0.04 * one**0.9 for one in left])
    epochs = [one["step"] for one in newest(run)[0].history]
    assert epochs == [6, 11]


def test_a_global_batch_that_can_not_be_kept_ends_the_attempt_in_order(
    data: Path, tmp_path: Path
) -> None:
    """Steps that `steps_per_epoch` counts are not to change their size inside an epoch."""
    given = values(data, steps_per_epoch=5, on_resize="scale")
    before = msgspec.convert(given["train"], TrainSpec)
    run = Run(tmp_path / "run", given)
    from clusterseg.train.batching import fresh

    assert gone_on(run, before, fresh(before, 1), StopAt(3)) == "SIGUSR1"
    run.spec = values(data, steps_per_epoch=5, on_resize="scale", batch_size=2)
    assert run.run() == 1
    assert "restore: train.steps_per_epoch counts steps of 4 images" in run.log()
    assert "keep the global batch" in run.log() and "Traceback" not in run.log()
