"""The command lines of docs/recipes.md for the four evaluations of the Ascend recipe."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from clusterseg.runs.store import find_runs

CLUSTERSEG = str(Path(sys.executable).with_name("clusterseg"))
PAGE = Path(__file__).resolve().parents[2] / "docs" / "recipes.md"
LINES = re.findall(r"^\| `test_\w+\.sh` \| `clusterseg (evaluate RUN .*?)`", PAGE.read_text(), re.M)

# The layout and the size are the recipe's, the network is one that is soon computed.
JOB = """
name: voc
train:
  model: {name: deeplabv3+, backbone: mobilenetv2}
  data: {format: voc2012, root: data, size: [33, 33]}
  optimizer: {name: sgd, learning_rate: 0.01}
  epochs: 1
  batch_size: 2
resources: {nodes: 1, ranks_per_node: 1, cpus_per_rank: 1}
placement: {oversubscribe: true}
scheduler: local
"""


def clusterseg(folder: Path, line: str) -> str:
    done = subprocess.run(
        [CLUSTERSEG, *line.split()], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.proof
@pytest.mark.timeout(3600)  # six sizes, up to 898x898, each in a graph of its own
def test_each_gives_figures_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(JOB)
    clusterseg(tmp_path, "data synth data --format voc2012 --size 50x60 --train 4 --val 1 --test 0")
    clusterseg(tmp_path, "submit --wait --runs-dir runs job.yaml")
    (run,) = find_runs(tmp_path / "runs")
    assert len(LINES) == 4
    found = [
        msgspec.json.decode(clusterseg(tmp_path, line.replace("RUN", str(run.root)) + " --json"))
        for line in LINES
    ]
    hows = [one["checkpoints"][0]["how"] for one in found]
    assert [how["tile"] for how in hows] == [[513, 513]] * 4
    scales = [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]
    assert [how["scales"] for how in hows] == [[1.0], [1.0], scales, scales]
    assert [how["flip"] for how in hows] == [False, False, False, True]
    for one in found:
        assert np.isfinite(one["checkpoints"][0]["val_mean_iou"])
