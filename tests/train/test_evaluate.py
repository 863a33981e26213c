"""Evaluating a checkpoint gives the very figures that its epoch's validation gave."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from clusterseg.cluster.fanout import Task, fan_out
from clusterseg.cluster.fanout_local import LocalJobs
from clusterseg.runs.checkpoints import CheckpointError
from clusterseg.runs.records import Epoch
from clusterseg.train.evaluate import FUNCTION, evaluate_checkpoint
from clusterseg.train.evaluation import choose
from clusterseg.train.sampling import validation_indices
from tests.train.runs import Run, job


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Run:
    spec = job(data, deterministic=False)
    spec["checkpoint"] |= {"keep_last": 9}
    run = Run(tmp_path_factory.mktemp("evaluate") / "run", spec)
    assert run.run() == 0, run.log()
    run.root.chmod(0o700)
    return run


@pytest.mark.slow
def test_each_epochs_figures_come_out_again(run: Run) -> None:
    """One rank, the same batches, threads and code: equal to the last bit."""
    shutil.copytree(run.paths.submission(0).folder, run.paths.submission(1).folder)
    chosen, _ = choose(run.paths, every=True)
    # Of the same process: what was built for one submission must not stand in the other's way.
    arguments = [
        {"run_dir": str(run.root), "path": one.path, "sha256": one.sha256, "submission": number}
        for number in (0, 1)
        for one in chosen
    ]
    jobs = LocalJobs(1)
    jobs.slots = 1
    done = fan_out(run.paths, FUNCTION, [Task(name="", arguments=one) for one in arguments], jobs)
    assert done.failures == ()
    epochs = [event for event in run.events() if isinstance(event, Epoch)]
    assert len(epochs) == len(chosen) == 3
    assert len({event.val_loss for event in epochs}) == 3
    for value, event in zip(done.values, [*epochs, *epochs], strict=True):
        for name in ("epoch", "step", "val_loss", "val_accuracy", "val_mean_iou"):
            assert value[name] == getattr(event, name)


@pytest.mark.parametrize(("count", "batch", "ranks"), [(9, 4, 2), (9, 4, 3), (17, 2, 5), (1, 3, 4)])
def test_one_rank_reads_the_very_batches_that_several_read(
    count: int, batch: int, ranks: int
) -> None:
    """So the confusion matrix is the sum of equal parts, whatever number of ranks trained."""
    alone = validation_indices(count=count, batch=batch, rank=0, world_size=1)
    shared = [
        row
        for rank in range(ranks)
        for row in validation_indices(count=count, batch=batch, rank=rank, world_size=ranks)
        if (row >= 0).any()
    ]
    assert sorted(map(tuple, alone)) == sorted(map(tuple, np.array(shared)))


@pytest.mark.slow
def test_a_damaged_and_a_replaced_file_are_refused(run: Run, tmp_path: Path) -> None:
    chosen, _ = choose(run.paths)
    copy = tmp_path / "copy.safetensors"
    content = bytearray(Path(chosen[0].path).read_bytes())
    content[-1] ^= 1
    copy.write_bytes(content)
    for path, sha256 in ((str(copy), chosen[0].sha256), (chosen[0].path, "0" * 64)):
        with pytest.raises(CheckpointError):
            evaluate_checkpoint(str(run.root), path=path, sha256=sha256, submission=0)
