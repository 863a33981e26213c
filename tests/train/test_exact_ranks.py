"""Exactly resumed by real ranks: killed at drawn steps they end bit-equal; gone on with as another
number, they read the same samples, and end as near as sums in another order allow."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import numpy as np
import pytest

from clusterseg.runs.checkpoints import list_checkpoints
from clusterseg.runs.records import RankEnd
from clusterseg.spec.model import TrainSpec
from clusterseg.train import waiting
from tests.train.attempts import Attempts, StopAt
from tests.train.exact import Saved, differences, scale_changes, trail
from tests.train.exact_ranks import (
    PROGRAM,
    Part,
    part,
    samples,
    samples_told,
    values,
)
from tests.train.exact_settings import Setting, job_of, small_networks
from tests.train.runs import Run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

EVERYTHING = Setting(
    "nadam", "cosine", "float16", "warmup ema accumulate clip decay dropout augment"
)
PLAIN = Setting("sgd_nesterov", "polynomial", "float32", "ema accumulate dropout augment")
RATE = 0.05
ALONE = 4  # steps of one rank, before two go on inside the second epoch
KEPT = 1e-4  # relative to the largest of its tensor: equal weights but for the order of sums
SEED = 1


def every_step(spec: dict[str, Any]) -> dict[str, Any]:
    return {**spec, "checkpoint": {"every": {"steps": 1}, "keep_last": 100}}


def everything(data: Path) -> dict[str, Any]:
    """2 ranks x 2 batches of 2 pictures: epochs of 5 steps, the last of them with padding."""
    spec = job_of(EVERYTHING, data, batch_size=2, sync_batch_norm=True)
    return {**spec, "checkpoint": {"every": {"steps": 2}, "keep_last": 100}}


def plain(data: Path, **train: Any) -> dict[str, Any]:
    """1 rank x 4 batches of 3 pictures: epochs of 3 steps; or 2 ranks x 2 such batches."""
    schedule = {"name": "polynomial", "power": 1.0}
    return every_step(job_of(PLAIN, data, accumulate=4, schedule=schedule, **train))


@pytest.fixture(scope="module")
def launch(data: Path) -> Callable[[list[Part]], int]:
    """The code of an mpirun: two ranks, each of which does these parts."""

    def launched(parts: list[Part]) -> int:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tests.train.runs.RANK", PROGRAM)
            first = Run(Path(parts[0].root), {}, ranks=2, communicator="mpi")
            process = first.launch(
                EXACT_PARTS=msgspec.json.encode(parts).decode(),
                PYTHONPATH=str(Path(__file__).parents[2]),
            )
            return process.wait(600)

    return launched


def copied(run: Run, root: Path, **changes: Any) -> Run:
    """A run that stands where `run` does, to be gone on with by two ranks."""
    shutil.copytree(run.root, root)
    two = {"ranks": 2, "communicator": "mpi"}
    return replace(run, **{"root": root, "claims": list(run.claims), **two, **changes})


def end(run: Run) -> Saved:
    found = trail(run)
    return found[max(found)]


@dataclass
class Done:
    """`whole` by two ranks; the others by one rank to the end, or by two from step ALONE on."""

    root: Path
    whole: Run
    alone: Run
    kept: Run
    other_masks: Run
    scaled: Run

    def samples(self, name: str, *ranks: str) -> list[tuple[int, list[int]]]:
        return samples(*(self.root / f"{name}{rank}.samples" for rank in ranks))


@pytest.fixture(scope="module")
def done(data: Path, tmp_path_factory: pytest.TempPathFactory, launch) -> Done:
    from clusterseg.train import wishes
    from clusterseg.train.assembly import assemble
    from clusterseg.train.communicator.solo import SoloCommunicator

    root = tmp_path_factory.mktemp("ranks")
    train = msgspec.convert(plain(data)["train"], TrainSpec)
    with small_networks():
        assembly = assemble(train, SoloCommunicator(), flags=wishes.COUNT, threads=1)
        fresh = {name: np.array(one.numpy()) for name, one in assembly.state.variables.items()}
        alone, stopped = (
            Attempts(Run(root / name, plain(data)), assembly, fresh)
            for name in ("alone", "stopped")
        )
        with samples_told(root / "alone.samples"):
            assert alone.attempt() is None
        with (
            samples_told(root / "stopped.samples"),
            # A validation agrees at every batch: by the clock, looks could not be counted.
            mock.patch.object(waiting, "CADENCE", 0.0),
        ):
            look = ALONE + 4  # and 4 of the first epoch's validation
            assert stopped.attempt(StopAt(look)) == "SIGUSR1"
    header = list_checkpoints(stopped.run.paths.checkpoints)[-1].header
    assert (header.step, header.samples_in_epoch) == (ALONE, 12)

    whole = Run(root / "whole", every_step(everything(data)), ranks=2, communicator="mpi")
    kept, other_masks = (copied(stopped.run, root / name) for name in ("kept", "other-masks"))
    scaled = copied(stopped.run, root / "scaled", spec=plain(data, on_resize="scale"))
    parts = [
        part(whole),
        part(kept, samples=str(root / "kept")),
        part(other_masks, same_masks=True),
        part(scaled, samples=str(root / "scaled")),
    ]
    assert launch(parts) == 0, "".join(run.log() for run in (whole, kept, other_masks, scaled))
    return Done(root, whole, alone.run, kept, other_masks, scaled)


@pytest.mark.proof
def test_ranks_killed_at_drawn_steps_end_bit_equal_and_state_left_out_shows(
    data: Path, tmp_path: Path, done: Done, launch
) -> None:
    found = trail(done.whole)
    assert len(found) == 15 and scale_changes(found) == {0.5, 1.0, 2.0}

    draw = random.Random(SEED)
    run = Run(tmp_path / "run", everything(data), ranks=2, communicator="mpi")
    for victim in draw.sample((0, 1), 2):
        assert launch([part(run, kill=(victim, draw.randrange(4, 9)))]) != 0
        assert not any(isinstance(one, RankEnd) for one in run.events(victim))
    killed_at = list_checkpoints(run.paths.checkpoints)[-1].header.step
    assert 2 < killed_at < 15 and run.claims[-1].resume_step > 0

    twin = copied(run, tmp_path / "twin")
    assert launch([part(run), part(twin, left_out="scale/value")]) == 0, run.log()
    assert run.claims[-1].resume_step == killed_at
    assert max(trail(run)) == max(found) == (15, True)
    assert differences(trail(run), found) == []
    assert differences(trail(twin), found)


def test_with_another_number_of_ranks_a_kept_batch_gives_the_same_steps(done: Done) -> None:
    assert "2 ranks, there were 1: the global batch stays 12 (2 ranks" in done.kept.log()
    read = done.samples("stopped", "") + done.samples("kept", "-0", "-1")
    assert read == done.samples("alone", "")
    found, wanted, twin = end(done.kept), end(done.alone), end(done.other_masks)
    assert found.header["step"] == wanted.header["step"] == 9
    assert found.header["world_size"] == 2
    assert rates(done.kept) == rates(done.alone)
    assert farthest(found, wanted) < KEPT
    for one, other in zip(found.header["history"], wanted.header["history"], strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=KEPT)
        assert one["val_loss"] == pytest.approx(other["val_loss"], rel=KEPT)
    # The twin: masks that belong to other places in the global batch.
    assert farthest(twin, wanted) > 10 * KEPT


def test_scaled_by_choice_each_sample_is_read_once_and_the_rate_follows(done: Done) -> None:
    assert "2 ranks, there were 1: the global batch was 12, is now 24 (2 ranks" in done.scaled.log()
    read = done.samples("stopped", "") + done.samples("scaled", "-0", "-1")
    assert [(epoch, len(one)) for epoch, one in read] == [
        (0, 12), (0, 12), (0, 12), (1, 12), (1, 24), (2, 24), (2, 12),
    ]  # fmt: skip
    for number in range(3):
        together = [one for epoch, step in read for one in step if epoch == number]
        assert sorted(together) == list(range(36))
    # Down to 0 over 9 steps of 12; then of 24, twice as high, from the same part of the run on.
    alone = [RATE * (1 - step / 9) for step in range(ALONE)]
    scaled = [2 * RATE * (1 - step / 6) for step in (3, 4, 5)]
    assert list(rates(done.scaled).values()) == pytest.approx([*alone, *scaled], rel=1e-6)


def rates(run: Run) -> dict[int, float]:
    """The learning rate of each step; a window is a step here."""
    windows = [one for number in range(run.attempt + 1) for one in run.windows(attempt=number)]
    assert all(one.count == 1 for one in windows)
    return {one.step: float(one.learning_rate or 0) for one in windows}


def farthest(found: Saved, wanted: Saved) -> float:
    """The largest difference in weights, statistics, averages and momentums, relative to the
    largest in its tensor."""
    one, other = values(found.tensors), values(wanted.tensors)
    assert one.keys() == other.keys()
    return max(
        float(np.abs(one[name] - value).max() / max(np.abs(value).max(), 1e-2))
        for name, value in other.items()
    )
