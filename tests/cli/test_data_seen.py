"""What `resume` asks a data set, where it is seen from here."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from clusterseg.cli.data_seen import identity_of_data
from clusterseg.data import open_dataset
from clusterseg.data.dataset import names_digest
from clusterseg.errors import ClustersegError
from clusterseg.plan.model import Plan
from clusterseg.submit.request import read_request
from tests.data.camvid_tree import write_tree

JOB = """
name: seen
train:
  model: {name: unet}
  data: {format: camvid, root: data, size: [32, 48]}
resources: {ranks: 1}
launcher: local
scheduler: local
"""


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.yaml").write_text(JOB)
    return read_request(tmp_path / "job.yaml")


def elsewhere(plan: Plan) -> Plan:
    return replace(plan, scheduler="slurm")


def test_a_data_set_that_is_seen_tells_what_the_job_does_not_say(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tree(tmp_path / "data", train=5)
    said: list[str] = []
    monkeypatch.chdir("/")  # the ranks run where the job was submitted
    for one in (plan, elsewhere(plan)):
        seen = identity_of_data(one, say=said.append)
        assert (seen["data samples"], seen["model.classes"]) == ("5", "11")
    assert said == []


def test_the_list_of_samples_is_known_wherever_it_lies_and_in_any_other_order_is_another(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = plan.spec.train
    assert train is not None

    def seen(root: str) -> str:
        data = replace(train.data, root=root)
        moved = replace(plan, spec=replace(plan.spec, train=replace(train, data=data)))
        return identity_of_data(moved, say=print)["data list"]

    write_tree(tmp_path / "data", train=5)
    write_tree(tmp_path / "deep/er", train=5, seed=1)
    known = seen("data")
    assert known == seen("./data/") == seen(str(tmp_path / "data")) == seen("deep/er")
    spec = replace(train.data, root=".")
    monkeypatch.chdir(tmp_path / "data")
    here = open_dataset(spec, 255).train
    assert names_digest(here, Path(spec.root)) == known

    file = tmp_path / "data" / "train.txt"
    lines = file.read_text().splitlines(keepends=True)
    # Absolute names of where it was made are looked for below the root.
    file.write_text("".join(f"/gone/{line.replace(' ', ' /gone/')}" for line in lines))
    assert seen("data") == known
    file.write_text("".join(reversed(lines)))
    assert seen("data") != known
    file.write_text("".join([*lines[:-1], lines[0]]))  # as many as before
    assert seen("data") != known


def test_pictures_are_not_read(plan: Plan, tmp_path: Path) -> None:
    for picture in write_tree(tmp_path / "data").rglob("*.png"):
        picture.write_bytes(b"none")
    assert identity_of_data(plan, say=print)["data samples"] == "3"


def test_what_is_not_seen_from_here_is_left_to_ranks_elsewhere(plan: Plan) -> None:
    said: list[str] = []
    assert identity_of_data(elsewhere(plan), say=said.append) == {}
    (line,) = said
    assert "the data set's folder" in line and "the ranks will tell" in line
    with pytest.raises(ClustersegError, match="does not exist") as caught:
        identity_of_data(plan, say=said.append)
    assert caught.value.exit_code == 2


def test_an_error_of_the_file_system_is_told_as_one(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tree(tmp_path / "data")

    def stale(path: Path) -> object:
        raise OSError(116, "Stale file handle", str(path))

    monkeypatch.setattr(Path, "iterdir", stale)
    with pytest.raises(ClustersegError, match=r"data/train: Stale file handle"):
        identity_of_data(plan, say=print)
