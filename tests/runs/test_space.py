"""Whether there is room to go on."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from clusterseg.runs import space
from clusterseg.runs.checkpoint_file import Tensor
from clusterseg.runs.checkpoints import commit_checkpoint
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import CheckpointHeader
from clusterseg.runs.space import RESERVE, Space, room_again

LEAST = 64 << 20
LARGE = 100 << 20


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[[Space], None]:
    def set_to(found: Space) -> None:
        monkeypatch.setattr(space, "space_in", lambda folder: found)

    return set_to


def saved(folder: Path, size: int) -> RunPaths:
    run = RunPaths(folder)
    run.checkpoints.mkdir()
    header = CheckpointHeader(epoch=0, step=1, step_in_epoch=1, attempt=0, t=0)
    tensors = [Tensor("x", "U8", (size,), memoryview(bytes(size)))]
    name = "weights-0000-0.0000-step-000000001.safetensors"
    commit_checkpoint(run.checkpoints, name, header, tensors, accepted={})
    return run


def test_room_is_what_the_largest_checkpoint_takes(
    tmp_path: Path, free: Callable[[Space], None]
) -> None:
    """Less would only use up the one further try that there is."""
    run = saved(tmp_path, LARGE)
    for size, enough in ((LARGE, False), (LARGE + RESERVE + (1 << 16), True), (None, True)):
        free(Space(size, 10))
        assert room_again(run) == enough
    free(Space(1 << 40, 0))  # a file needs a name, too
    assert not room_again(run)


def test_a_run_that_saved_nothing_yet_needs_a_little(
    tmp_path: Path, free: Callable[[Space], None]
) -> None:
    for size in (LEAST - 1, LEAST):
        free(Space(size, None))
        assert room_again(RunPaths(tmp_path)) == (size == LEAST)


def test_where_it_can_not_be_told_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale(folder: Path) -> Space:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(space, "space_in", stale)
    assert not room_again(RunPaths(tmp_path))
