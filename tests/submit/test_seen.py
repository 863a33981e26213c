"""What is told of a data set before a job is submitted."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from clusterseg.plan.model import Plan
from clusterseg.submit.request import read_request
from clusterseg.submit.seen import data_warnings

JOB = """
name: seen
train: {model: {name: unet}, data: {format: camvid, root: data}}
resources: {ranks: 1}
launcher: local
scheduler: local
"""


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.yaml").write_text(JOB)
    return read_request(tmp_path / "job.yaml")


def test_a_data_set_that_is_not_there_is_told(plan: Plan, tmp_path: Path) -> None:
    missing = f"train.data.root: {tmp_path}/data does not exist on this machine, and the ranks"
    (told,) = [one for one in plan.warnings if "data.root" in one]
    assert told == f"{missing} will not find it"
    (told,) = data_warnings(replace(plan, scheduler="slurm"))
    assert told == f"{missing}' hosts need it"
    (tmp_path / "data").write_text("a file")
    assert "data is no folder on this machine" in data_warnings(plan)[0]


def test_one_that_is_seen_is_not(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.chdir("/")
    assert data_warnings(plan) == ()
    command = replace(plan.spec, train=None, command=("true",))
    assert data_warnings(replace(plan, spec=command)) == ()
