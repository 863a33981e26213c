"""`clusterseg lr-find`, from the job.yaml to what it found."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from clusterseg.cli.hints import live_hints
from clusterseg.errors import ClustersegError
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Identity, Intent
from clusterseg.runs.store import find_runs, read_identity
from clusterseg.submit.resumption import refuse_lr_find
from tests.cli.conftest import Done

Cli = Callable[..., Done]
CLUSTERSEG = str(Path(sys.executable).with_name("clusterseg"))

JOB = """
name: searched
train:
  model: {name: unet, base_filters: 4, head_filters: null, dropout: 0}
  data: {format: camvid, root: data, size: [32, 48]}
  optimizer: {name: sgd}
  epochs: 2
  batch_size: 8
checkpoint: {every: 1 steps}
resources: {nodes: 1, ranks_per_node: 1, cpus_per_rank: 1}
placement: {oversubscribe: true}
scheduler: local
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_that_finds_a_rate_says_so_and_is_not_resumed(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(JOB)
    synth = "data synth data --format camvid --size 32x48 --train 36 --val 5 --test 0"
    asked = "lr-find job.yaml --optimizer adam --wait --json --runs-dir runs"
    for line in (synth, asked):
        done = subprocess.run(
            [CLUSTERSEG, *line.split()], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    told = msgspec.json.decode(done.stdout)
    assert set(told) == {"run", "run_dir", "job_id", "state", "lr_find"}
    assert told["state"] == "done"
    (sweep,) = told["lr_find"]["sweeps"]
    assert sweep["optimizer"] == "adam"  # not the job's own
    assert sweep["suggestion"] is not None, sweep["why"]
    assert len(sweep["rates"]) == len(sweep["losses"]) >= 100

    (run,) = find_runs(tmp_path / "runs")
    assert told["run_dir"] == str(run.root)
    assert msgspec.json.decode(run.lr_find.read_bytes()) == told["lr_find"]
    assert run.lr_find_plot.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert list(run.checkpoints.iterdir()) == []
    assert read_identity(run).task == "lr-find"

    rate = f"{sweep['suggestion']['setting']:.2g}"
    status = cli("status", run.root)
    assert "lr-find: a learning rate range test" in status.out
    assert any(line.split()[:2] == ["adam", rate] for line in status.out.splitlines())
    assert "epoch" not in status.out and "resume" not in status.err
    assert cli("status", "--json", run.root).json["lr_find"] == told["lr_find"]
    (row,) = cli("list", "--json", "--runs-dir", tmp_path / "runs").json
    assert (row["task"], row["state"]) == ("lr-find", "done")
    assert "lr-find" in cli("list", "--runs-dir", tmp_path / "runs").out

    assert_not_resumed(cli, run)


def assert_not_resumed(cli: Cli, run: RunPaths) -> None:
    """Not even with a change: planned again, its job would be trained."""
    for change in ((), ("--set", "train.epochs=3")):
        refused = cli("resume", run.root, *change)
        assert refused.code == 2
        assert "learning rate range test" in refused.err and "saves no checkpoint" in refused.err
        assert "clusterseg lr-find" in refused.err
    assert len(list(run.submissions.iterdir())) == 1


def test_mistakes_are_told_and_make_no_run(cli: Cli, tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(JOB)
    runs = tmp_path / "runs"
    unknown = cli("lr-find", job, "--optimizer", "sdg", "--json", "--runs-dir", runs)
    assert unknown.code == 2
    (error,) = unknown.json["errors"]
    assert (error["code"], "did you mean sgd" in error["message"]) == ("unknown-optimizer", True)
    job.write_text("name: x\ncommand: ['true']\nscheduler: local\n")
    command = cli("lr-find", job, "--runs-dir", runs)
    assert command.code == 2 and "`command:`" in command.err
    assert not runs.exists()


@pytest.mark.parametrize(("task", "goes_on"), [("train", True), ("lr-find", False)])
def test_nobody_is_told_that_a_range_test_could_be_stopped_resumably(
    tmp_path: Path, task: str, goes_on: bool
) -> None:
    run = RunPaths(tmp_path)
    identity = Identity(key="k", uid=os.getuid(), name="searched", created=0.0, task=task)
    run.identity.write_bytes(msgspec.json.encode(identity))
    (stop,) = [why for command, why in live_hints(run) if "cancel" in command]
    assert ("resumably" in stop) is goes_on


def test_the_way_to_begin_anew_asks_for_the_same_test(tmp_path: Path) -> None:
    run = RunPaths(tmp_path / "run")
    submission = run.submission(0)
    submission.folder.mkdir(parents=True)
    identity = Identity(key="k", uid=os.getuid(), name="x", created=0.0, task="lr-find")
    run.identity.write_bytes(msgspec.json.encode(identity))
    sets = ["train.batch_size=2", "tags=[a, b]"]
    intent = Intent(
        t=0.0, key="k", submission=0, scheduler="local", host="h", uid=os.getuid(), overrides=sets
    )
    submission.intent.write_bytes(msgspec.json.encode(intent))
    plan = {"ranks": 1, "lr_find": {"optimizers": ["adam", "sgd"], "steps": 141}}
    submission.plan.write_bytes(msgspec.json.encode(plan))
    with pytest.raises(ClustersegError) as caught:
        refuse_lr_find(run)
    command = (caught.value.help or "").removeprefix("begin it anew: ").partition(";")[0]
    assert shlex.split(command) == [
        "clusterseg", "lr-find", str(submission.job_yaml),
        "--optimizer", "adam", "--optimizer", "sgd", "--set", sets[0], "--set", sets[1],
    ]  # fmt: skip
