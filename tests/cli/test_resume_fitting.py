"""`resume` of a run that was trained, with another job: refused before anything is submitted."""

from __future__ import annotations

import subprocess
import sys
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest

from clusterseg.runs.attempts import Attempt, iter_attempts
from clusterseg.runs.checkpoint_file import Tensor, read_layout
from clusterseg.runs.checkpoints import commit_checkpoint, list_checkpoints
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import CheckpointHeader
from clusterseg.runs.store import find_runs, iter_submissions
from tests.cli.conftest import Done

Cli = Callable[..., Done]
CLUSTERSEG = str(Path(sys.executable).with_name("clusterseg"))

JOB = """
name: fitting
train:
  model: {name: fastscnn, width: 0.25}
  data: {format: camvid, root: data, size: [32, 48]}
  optimizer: {name: sgd, learning_rate: 0.02}
  epochs: 1
  batch_size: 4
checkpoint: {every: 2 steps, keep_last: 9}
resources: {nodes: 1, ranks_per_node: 2, cpus_per_rank: 1}
placement: {oversubscribe: true, bind_to: none}
scheduler: local
"""
ANOTHER = ("--set", "train.optimizer={name: adam}", "--set", "train.model={name: unet}")
SEED = ("--set", "train.seed=5", "--set", "train.epochs=2")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    """A run of one epoch on two real ranks, done: saved at step 2, within it, and at its end."""
    folder = tmp_path_factory.mktemp("fitting")
    (folder / "job.yaml").write_text(JOB)
    synth = "data synth data --format camvid --size 32x48 --train 24 --val 5 --test 0"
    for line in (synth, "submit --wait --runs-dir runs job.yaml"):
        done = subprocess.run(
            [CLUSTERSEG, *line.split()], cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    (run,) = find_runs(folder / "runs")
    saved = [one.header.step_in_epoch for one in list_checkpoints(run.checkpoints)]
    assert saved == [2, 0]
    return run


def last_attempt(run: RunPaths) -> Attempt:
    return list(iter_attempts(run))[-1]


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_another_model_and_optimizer_are_refused_with_the_keys_before_anything_is_submitted(
    cli: Cli, trained: RunPaths, force: tuple[str, ...]
) -> None:
    before = sorted(path for path in trained.root.rglob("*"))
    done = cli("resume", trained.root, *ANOTHER, *force)
    assert done.code == 2
    assert "error[checkpoint-mismatch]: weights-0001-" in done.err
    for said in (
        "model.name is fastscnn there, unet now",
        'model.options is {"width": 0.25} there, {} now',
        "optimizer.name is sgd there, adam now",
        "optimizer.momentum",
    ):
        assert (said in done.err) == (said != "optimizer.momentum"), done.err  # adam has none
    assert "--force" not in done.err  # it could not help
    assert sorted(path for path in trained.root.rglob("*")) == before
    told = cli("resume", trained.root, *ANOTHER, *force, "--json").json["errors"][0]
    assert told["code"] == "checkpoint-mismatch" and "optimizer.name" in told["message"]


def test_another_seed_wants_force_at_an_epochs_end(cli: Cli, trained: RunPaths) -> None:
    done = cli("resume", trained.root, *SEED)
    assert done.code == 2
    assert "seed is 0 there, 5 now" in done.err and "--force if it is meant so" in done.err
    assert len(iter_submissions(trained)) == 1


def test_ranks_that_can_not_share_the_global_batch_are_refused(cli: Cli, trained: RunPaths) -> None:
    three = ("--set", "resources.ranks_per_node=3", "--set", "train.epochs=2")
    done = cli("resume", trained.root, *three)
    assert done.code == 2
    said = "resources make 3 ranks now, 2 there: 3 ranks can't share a global batch of 8 images"
    assert said in done.err and "1, 2, 4, 8 ranks" in done.err
    assert len(iter_submissions(trained)) == 1


def test_other_data_are_refused_where_they_are_seen(cli: Cli, trained: RunPaths) -> None:
    file = trained.root.parents[1] / "data" / "train.txt"
    lines = file.read_text().splitlines(keepends=True)
    more = ("--set", "train.epochs=2")
    file.write_text("".join(lines[1:]))
    try:
        done = cli("resume", trained.root, *more)
        assert done.code == 2 and "data samples is 24 there, 23 now" in done.err
        file.write_text("".join(reversed(lines)))  # as many as before
        done = cli("resume", trained.root, *more)
        assert done.code == 2 and "another list of samples there" in done.err
        file.write_text("one two three")
        done = cli("resume", trained.root, *more)
        assert done.code == 2 and f"{file}:1: expected `image mask`" in done.err
        file.unlink()
        done = cli("resume", trained.root, *more)
        assert done.code == 2 and f"{file}: no such file" in done.err
    finally:
        file.write_text("".join(lines))
    assert len(iter_submissions(trained)) == 1


@pytest.mark.proof
def test_forced_it_goes_on_and_a_stray_newest_of_another_model_is_set_aside(
    cli: Cli, trained: RunPaths
) -> None:
    done = cli("resume", trained.root, *SEED, "--force", "--wait")
    assert done.code == 0, done.err
    assert "warning: --force: seed is 0 there, 5 now" in done.err
    log = last_attempt(trained).paths.log(0).read_text()
    assert "warning: --force: seed is 0 there, 5 now (weights-0001-" in log
    newest = list_checkpoints(trained.checkpoints)[-1]
    assert (newest.header.epoch, newest.header.identity["seed"]) == (2, "5")

    number = last_attempt(trained).number
    stray = commit_checkpoint(
        trained.checkpoints,
        "weights-0009-0.9000.safetensors",
        CheckpointHeader(
            epoch=9,
            step=99,
            step_in_epoch=0,
            attempt=number,
            t=1.0,
            identity={**newest.header.identity, "model.name": "unet"},
        ),
        [Tensor("model/a", "F32", (1,), memoryview(array("f", [1.0])))],
        accepted={},
    )
    done = cli("resume", trained.root, "--set", "train.epochs=3", "--wait")
    assert done.code == 0, done.err
    assert not stray.path.exists() and (trained.rejected / stray.name).exists()
    said = trained.submission(2).output.read_text()
    assert "it is of another job: model.name is unet there, fastscnn now" in said
    end = last_attempt(trained)
    assert end.claim is not None and end.claim.resume_from == newest.name
    last = list_checkpoints(trained.checkpoints)[-1]
    assert (last.header.epoch, last.header.attempt) == (3, end.number)
    assert read_layout(last.path).header.identity["seed"] == "5"
    # No attempt was wasted on a checkpoint that does not fit.
    errors = [attempt.end.error or "" for attempt in iter_attempts(trained) if attempt.end]
    assert not [error for error in errors if "restore" in error]
