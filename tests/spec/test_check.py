"""`clusterseg check`: what it says of a good job and of a bad one, to people and to tools."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CLUSTERSEG = Path(sys.executable).with_name("clusterseg")
JOB = """\
name: checked
command: [prog, "two words"]
resources: {nodes: 1, ranks_per_node: 1, cpus_per_rank: 1, time: 90}
launcher: local
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "job.yaml").write_text(JOB)
    return tmp_path


def check(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [CLUSTERSEG, "check", "job.yaml", *arguments],
        cwd=folder,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_good_job_is_explained(folder: Path) -> None:
    done = check(folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert (
        done.stdout.splitlines()[0] == "job.yaml: checked runs prog 'two words', at most 01:30:00"
    )
    for line in ("nodes = 1: given", "ranks_per_node = 1: given", "launcher: local"):
        assert line in done.stdout


def test_a_training_is_summed_up(folder: Path) -> None:
    (folder / "job.yaml").write_text(
        "name: t\nlauncher: local\nresources: {ranks: 1}\n"
        "train: {model: {name: unet}, data: {format: camvid, root: d}, batch_size: 3, epochs: 4}\n"
    )
    line = check(folder).stdout.splitlines()[0]
    assert line == "job.yaml: t trains unet on camvid (d) for 4 epochs, 3 images a step"


def test_json(folder: Path) -> None:
    done = check(folder, "--json", "--set", "name=other")
    found = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert found["ok"] is True
    assert found["name"] == "other"
    assert found["launcher"] == "local"
    assert found["time_limit"] == 5400
    assert found["geometry"]["ranks"] == 1
    assert isinstance(found["warnings"], list)


def test_all_errors_at_once_with_exit_2(folder: Path) -> None:
    done = check(folder, "--set", "resources.nodse=1", "--set", "launcher=openmpj5")
    assert (done.returncode, done.stdout) == (2, "")
    assert "error[unknown-key]" in done.stderr
    assert "--> --set:1:11" in done.stderr
    assert "error[unknown-name]" in done.stderr
    assert "--> --set:2:10" in done.stderr


def test_errors_as_json(folder: Path) -> None:
    done = check(folder, "--json", "--set", "resources.nodse=1", "--set", "x=1")
    assert (done.returncode, done.stderr) == (2, "")
    errors = json.loads(done.stdout)["errors"]
    assert [e["argument"] for e in errors] == ["resources.nodse=1", "x=1"]


def test_what_comes_later_is_pointed_at(folder: Path) -> None:
    later = JOB.replace("time: 90", "memory: 4G")
    (folder / "job.yaml").write_text(later + "environment: {container: a.sif}\n")
    done = check(folder)
    assert done.returncode == 2
    assert done.stderr.count("error[not-yet]") == 2
    assert "--> job.yaml:3:68" in done.stderr
    assert "--> job.yaml:5:26" in done.stderr


def test_a_contradiction_is_pointed_at(folder: Path) -> None:
    done = check(folder, "--set", "resources.ranks=3")
    assert done.returncode == 2
    assert "error[geometry]" in done.stderr
    assert "--> job.yaml:3:1" in done.stderr
    assert "= 3" in done.stderr


def test_a_terminal_that_is_not_utf8(folder: Path) -> None:
    (folder / "job.yaml").write_text(JOB.replace("cpus_per_rank: 1, ", ""))
    done = check(folder, "--set", "command=[é, 日]", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\xe9" in done.stdout
    done = check(folder, "--set", "notes.日=é", PYTHONIOENCODING="ascii")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
