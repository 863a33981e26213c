"""A training that is done goes on for more epochs, as if it had always had them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from clusterseg.runs.attempts import iter_attempts
from clusterseg.runs.eventlog import iter_events
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Cause, RankStart, Steps
from clusterseg.spec.model import ScheduleSpec
from clusterseg.train.schedule import learning_rate
from tests.train.runs import BIN

PER_EPOCH = 9  # steps: 36 pictures in batches of 4
RATE = 0.02


def clusterseg(folder: Path, *arguments: str) -> str:
    argv = [str(BIN / "clusterseg"), *arguments, "--runs-dir", str(folder / "runs")]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_run_that_is_done_gets_more_epochs(data: Path, tmp_path: Path) -> None:
    train = {
        "model": {"name": "fastscnn", "width": 0.25},
        "data": {"format": "camvid", "root": str(data), "size": [32, 48]},
        "optimizer": {"name": "sgd", "learning_rate": RATE},
        "schedule": {"name": "polynomial", "warmup_epochs": 0.5},
        "epochs": 1,
        "batch_size": 4,
    }
    job = {
        "name": "more",
        "train": train,
        "scheduler": "local",
        "launcher": "local",
        "resources": {"ranks": 1},
    }
    (tmp_path / "job.yaml").write_text(json.dumps(job))
    run = RunPaths(
        Path(json.loads(clusterseg(tmp_path, "submit", "job.yaml", "--json"))["run_dir"])
    )
    clusterseg(tmp_path, "wait", run.run_id)
    clusterseg(tmp_path, "resume", run.run_id, "--set", "train.epochs=3", "--wait")

    first, second = list(iter_attempts(run))
    assert [one.end.cause for one in (first, second) if one.end] == [Cause.DONE, Cause.DONE]
    assert second.claim is not None
    assert second.claim.resume_step == PER_EPOCH
    with second.open("ranks/00000.jsonl") as stream:
        events = list(iter_events(stream))
    (start,) = (event for event in events if isinstance(event, RankStart))
    assert (start.epoch, start.step) == (1, PER_EPOCH)
    windows = [event for event in events if isinstance(event, Steps)]
    covered = [step for one in windows for step in range(one.step - one.count + 1, one.step + 1)]
    assert covered == list(range(PER_EPOCH + 1, 3 * PER_EPOCH + 1))
    schedule = ScheduleSpec(name="polynomial", warmup_epochs=0.5)
    for one in windows:
        wanted = learning_rate(
            schedule, RATE, step=one.step - 1, steps_per_epoch=PER_EPOCH, epochs=3
        )
        assert one.learning_rate == pytest.approx(wanted)
