"""What is found to be wrong with a file of initial weights before anything is submitted."""

from __future__ import annotations

from array import array
from pathlib import Path

import h5py
import numpy as np
import pytest
from msgspec.structs import replace
from safetensors.numpy import save_file

from clusterseg.errors import ClustersegError
from clusterseg.runs.checkpoint_file import Tensor
from clusterseg.runs.checkpoints import commit_checkpoint
from clusterseg.runs.records import CheckpointHeader
from clusterseg.spec.errors import SpecError
from clusterseg.submit.request import read_request
from clusterseg.submit.weights import look_at_weights
from clusterseg.train.initial_weights.read import open_source

JOB = """
name: weights
train:
  model: {name: unet}
  data: {format: camvid, root: data}
  initial_weights: w
resources: {ranks: 1}
launcher: local
scheduler: local
"""
NUMBERS = np.arange(300, dtype=np.float32)
KINDS = ["hdf5", "new hdf5", "safetensors", "checkpoint"]


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.yaml").write_text(JOB)
    return tmp_path / "job.yaml"


def sound(path: Path, kind: str) -> None:
    """Writes a file that the ranks would open."""
    if kind == "safetensors":
        save_file({"a/kernel": NUMBERS, "a/bias": NUMBERS}, path)
    elif kind == "checkpoint":
        header = CheckpointHeader(epoch=1, step=1, step_in_epoch=0, attempt=0, t=1)
        data = memoryview(array("f", [1.0] * 300))
        tensor = Tensor("model/a", "F32", (300,), data)
        commit_checkpoint(path.parent, path.name, header, [tensor], accepted={})
    else:
        newest = "latest" if kind == "new hdf5" else "earliest"
        with h5py.File(path, "w", libver=newest) as file:
            file.create_dataset("layers/conv2d/vars/0", data=NUMBERS)


def refusal(job: Path) -> str:
    """The message, which stands at the key."""
    with pytest.raises(SpecError) as caught:
        read_request(job)
    assert caught.value.exit_code == 2
    (problem,) = caught.value.problems
    assert problem.code == "initial-weights" and problem.help
    assert str(problem.place).endswith("job.yaml:6:20")
    assert problem.message.startswith(f"train.initial_weights: {job.parent / 'w'} ")
    return problem.message


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_ranks_open_is_not_refused(job: Path, kind: str) -> None:
    sound(job.parent / "w", kind)
    with open_source(job.parent / "w") as source:
        assert source.items
    assert not [one for one in read_request(job).warnings if "initial_weights" in one]


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_file_is_refused_wherever_it_ends(job: Path, kind: str) -> None:
    sound(job.parent / "w", kind)
    whole = (job.parent / "w").read_bytes()
    for length in (1, 7, 8, 9, 20, 47, 48, 95, 200, len(whole) // 2, len(whole) - 1):
        (job.parent / "w").write_bytes(whole[:length])
        said = refusal(job)
        assert "truncated" in said, (length, said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04 an archive", "is an archive (a .keras file, or one of torch)"),
        (b"\x80\x02}q\x00(X\x05\x00\x00\x00state", "is no file of weights"),
        (b"name: not weights at all\n", "is no file of weights"),
        (b"\x99" + bytes(7) + b'{"a":', "is truncated: 13 bytes, its header alone has 153"),
        (b"\x02" + bytes(7) + b"[]", "its header is damaged"),
        (b"\x09" + bytes(7) + b'{"a": {}}', "its header is damaged"),
        (
            b"\x18" + bytes(7) + b'{"__metadata__":{"a":1}',
            "is truncated: 31 bytes, its header alone has 24",
        ),
    ],
)
def test_another_kind_of_file_is_refused(job: Path, content: bytes, said: str) -> None:
    (job.parent / "w").write_bytes(content)
    assert said in refusal(job)


def test_what_is_not_there_is_refused_where_the_ranks_run(job: Path) -> None:
    assert "does not exist" in refusal(job)
    (job.parent / "w").mkdir()
    assert "is no plain file" in refusal(job)


def test_ranks_elsewhere_may_see_what_is_not_seen_here(job: Path) -> None:
    plan = replace(read_request(job, begins=False), scheduler="slurm")
    (warning,) = look_at_weights(plan)
    assert "w does not exist on this machine, so that it was not looked at" in warning
    (job.parent / "w").write_bytes(b"")
    with pytest.raises(ClustersegError, match="is empty"):  # it is seen, and useless anywhere
        look_at_weights(plan)


def test_a_relative_path_starts_where_the_ranks_run(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = read_request(job, begins=False)
    sound(job.parent / "w", "safetensors")
    monkeypatch.chdir("/")
    assert look_at_weights(plan) == ()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert plan.spec.train is not None
    spec = replace(plan.spec, train=replace(plan.spec.train, initial_weights="~/w"))
    assert look_at_weights(replace(plan, spec=spec)) == ()


def test_a_checkpoint_of_tensorflow_is_told_by_its_prefix(job: Path) -> None:
    """It is several files, none of which is called as it is; of version 1, one."""
    table = bytes(60) + bytes.fromhex("57fb808b247547db")
    plan = read_request(job, begins=False)
    index = job.parent / "w.index"
    index.write_bytes(table)
    assert "w.data-00000-of-00001" in refusal(job)
    (job.parent / "w.data-00000-of-00001").write_bytes(bytes(9))
    assert look_at_weights(plan) == ()
    index.write_bytes(table[:-1])
    assert "does not exist" in refusal(job)
    index.unlink()
    (job.parent / "w").write_bytes(table)
    assert look_at_weights(plan) == ()
