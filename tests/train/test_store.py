"""Rank 0's checkpoints: the last one that is known to be good goes only after another is."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from clusterseg.runs.checkpoint_file import Tensor, file_size, verify
from clusterseg.runs.checkpoints import commit_checkpoint, list_checkpoints
from clusterseg.runs.claims import claim_next
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import CheckpointHeader, Claim
from clusterseg.spec.model import CheckpointSpec
from tests.runs.claiming import QUICK, World, wanted

pytestmark = pytest.mark.slow


@dataclasses.dataclass
class Rank0:
    """Saves steps of one attempt, keeping `keep_last`."""

    run: RunPaths
    claim: Claim
    keep_last: int = 1

    def __post_init__(self) -> None:
        from clusterseg.train.store import CheckpointStore

        spec = CheckpointSpec(keep_last=self.keep_last, keep_best=0)
        self.store = CheckpointStore(self.run, self.claim, spec)

    def save(self, step: int) -> Any:
        header = CheckpointHeader(
            epoch=0, step=step, step_in_epoch=step, attempt=self.claim.attempt, t=0
        )
        tensors = [Tensor("x", "U8", (4000,), memoryview(bytes([step]) * 4000))]
        name = f"weights-0000-0.0000-step-{step:09d}.safetensors"
        return self.store.write(name, header, tensors, reserve=0)

    def steps(self) -> list[int]:
        return [one.header.step for one in list_checkpoints(self.run.checkpoints)]


@pytest.fixture
def rank0(tmp_path: Path) -> Rank0:
    (tmp_path / "run").mkdir()
    run = RunPaths(tmp_path / "run")
    claim = claim_next(run, wanted(pid=1), World(process=False), QUICK)
    assert claim is not None
    return Rank0(run, claim)


def spoil_step(monkeypatch: pytest.MonkeyPatch, bad: int) -> None:
    """What is written for that step is not what was meant: memory or a disk that flips a bit."""
    from clusterseg.train import store

    def flips(folder: Path, name: str, header: CheckpointHeader, *args: Any, **kw: Any) -> Any:
        info = commit_checkpoint(folder, name, header, *args, **kw)
        if header.step == bad:
            content = bytearray(info.path.read_bytes())
            content[-7] ^= 16
            info.path.write_bytes(content)
        return info

    monkeypatch.setattr(store, "commit_checkpoint", flips)


def test_the_size_of_a_file_is_known_before(rank0: Rank0) -> None:
    """With a history in the header that has something to escape."""
    header = CheckpointHeader(
        epoch=1, step=9, step_in_epoch=0, attempt=0, t=1.5, identity={"data": 'a "b" \u00e9'},
        history=[{"epoch": 1, "loss": 0.25}],
    )  # fmt: skip
    tensors = [
        Tensor("a", "F32", (3, 5), memoryview(bytes(60))),
        Tensor("b", "I64", (), memoryview(bytes(8))),
    ]
    name = "weights-0001-0.0000.safetensors"
    written = rank0.store.write(name, header, tensors, reserve=0)
    assert file_size(header, tensors) == written.info.bytes


def test_a_bad_newest_is_found_before_the_good_one_goes(
    rank0: Rank0, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_step(monkeypatch, bad=2)
    rank0.save(1)
    with pytest.raises(OSError, match=r"read back, weights.*000000002.* is damaged"):
        rank0.save(2)
    assert rank0.steps() == [1]
    verify(list_checkpoints(rank0.run.checkpoints)[0].path)
    assert [one.name for one in rank0.run.rejected.glob("*.safetensors")] == [
        "weights-0000-0.0000-step-000000002.safetensors"
    ]
    rank0.save(3)
    assert rank0.steps() == [3]


def test_a_bad_newest_that_cannot_be_set_aside_is_not_taken_for_saved(
    rank0: Rank0, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clusterseg.train import store

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    spoil_step(monkeypatch, bad=2)
    rank0.save(1)
    with monkeypatch.context() as patch:
        patch.setattr(store, "reject", full)
        with pytest.raises(OSError, match=r"read back, weights.*000000002.* is damaged"):
            rank0.save(2)
    assert rank0.steps() == [1, 2]
    rank0.save(3)
    assert 3 in rank0.steps()


def test_without_reading_back_the_bad_one_alone_would_stay(
    rank0: Rank0, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative twin."""
    from clusterseg.train.store import CheckpointStore

    spoil_step(monkeypatch, bad=2)
    monkeypatch.setattr(CheckpointStore, "_read_back", lambda self, newest: None)
    rank0.save(1)
    rank0.save(2)
    assert rank0.steps() == [2]


def test_reading_back_is_done_only_where_nothing_good_would_stay(
    rank0: Rank0, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clusterseg.train import store

    read = []
    monkeypatch.setattr(
        store,
        "verify",
        lambda path, sha256, **how: (read.append(path.name), verify(path, sha256, **how))[1],
    )
    two = Rank0(rank0.run, rank0.claim, keep_last=2)
    for step in range(1, 8):
        two.save(step)
    assert two.steps() == [6, 7]
    # Of two that stay, one is known to be good: every second save is read back.
    assert [int(name[-21:-12]) for name in read] == [3, 5, 7]


def test_what_the_claim_resumed_from_is_known_to_be_good(rank0: Rank0) -> None:
    rank0.save(1)
    claim = claim_next(rank0.run, wanted(pid=2), World(process=False), QUICK)
    assert claim is not None and claim.resume_from is not None
    following = Rank0(rank0.run, claim, keep_last=2)
    following.save(2)
    assert following.steps() == [1, 2]


def test_a_moment_in_which_nothing_can_be_read_deletes_nothing_and_fails_nothing(
    rank0: Rank0, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from clusterseg.runs.checkpoint_file import CheckpointError
    from clusterseg.train import store

    def stale(path: Path, sha256: str, *, from_disk: bool) -> None:
        raise CheckpointError("cannot be read") from OSError(116, "Stale file handle")

    rank0.save(1)
    with monkeypatch.context() as patch:
        patch.setattr(store, "verify", stale)
        assert rank0.save(2).info.header.step == 2
    assert rank0.steps() == [1, 2] and "Stale file handle" in capfd.readouterr().err
    rank0.save(3)
    assert rank0.steps() == [3]


def test_a_save_that_failed_after_its_link_is_finished_by_the_same_bytes(
    rank0: Rank0, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clusterseg.runs import files

    def fails(folder: Path) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(files, "sync_folder", fails)
        with pytest.raises(OSError, match="Input/output"):
            rank0.save(1)
    assert rank0.save(1).info.header.step == 1
    assert rank0.steps() == [1]
