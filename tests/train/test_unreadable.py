"""A sample that can't be used: named, and with `on_unreadable: skip` left out in its place."""

from __future__ import annotations

import errno
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace as with_fields
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from clusterseg.data import class_counts, open_dataset
from clusterseg.data.files import is_of_the_file, picture_size
from clusterseg.data.order import PADDING, epoch_order
from clusterseg.data.pipeline import batches
from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.runs.checkpoints import list_checkpoints
from clusterseg.spec.model import DataSpec, TrainSpec
from clusterseg.train.assembly import Assembly
from clusterseg.train.board.points import window_points
from clusterseg.train.feeding import feed, validation_batches
from clusterseg.train.sampling import training_indices
from clusterseg.train.unreadable import Unreadable
from tests.train.attempts import Attempts, StopAt
from tests.train.batchings import shared
from tests.train.runs import Run, job

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

FIRST = [int(index) for index in epoch_order(0, 0, 36)[:8]]  # two global batches of 4


@pytest.fixture
def copy(data: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(data, tmp_path / "data"))


def spec(root: Path, **data: Any) -> TrainSpec:
    train = job(root)["train"]
    train["data"] |= {"on_unreadable": "skip", **data}
    return msgspec.convert(train, TrainSpec)


def opened(assembly: Assembly, root: Path) -> Assembly:
    dataset = open_dataset(spec(root).data, 255)
    return with_fields(assembly, dataset=dataset, unreadable=Unreadable())


def spoil(root: Path, *numbers: int, part: str = "train") -> list[Path]:
    dataset = open_dataset(DataSpec(format="camvid", root=str(root), size=(32, 48)), 255)
    samples = (dataset.train if part == "train" else dataset.validation).samples
    for number in numbers:
        samples[number].image.write_bytes(b"no picture")
    return [samples[number].image for number in numbers]


def fed(assembly: Assembly, root: Path, indices: np.ndarray[Any, Any], **data: Any) -> list[Any]:
    part = assembly.dataset.train
    augment = ({"flip_horizontal": 0.5},)
    elements = feed(part, indices, spec(root, **data), assembly, epoch=0, augment=augment)
    return [tuple(one.numpy() for one in element) for element in elements]


def rows(rank: int = 0, world_size: int = 1, first: int = 0) -> np.ndarray[Any, Any]:
    return training_indices(
        seed=0, epoch=0, count=36, first=4 * first, last=36, rank=rank,
        batching=shared(4, world_size),
    )  # fmt: skip


def same(one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) and all(
        np.array_equal(a, b) for left, right in zip(one, other, strict=True)
        for a, b in zip(left, right, strict=True)
    )  # fmt: skip


def test_every_other_sample_is_where_it_was_and_the_bad_one_is_padding(
    assembly: Assembly, data: Path, copy: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bad = [FIRST[1], FIRST[6]]
    names = spoil(copy, *bad)
    padded = np.where(np.isin(rows(), bad), PADDING, rows())
    intact = batches(
        open_dataset(spec(data).data, 255).train, padded, seed=0, epoch=0,
        augment=({"flip_horizontal": 0.5},), size=(32, 48), ignore=255, threads=1,
    )  # fmt: skip
    used = opened(assembly, copy)
    found = fed(used, copy, rows())
    assert same(found, [tuple(one.numpy() for one in element) for element in intact])
    said = capfd.readouterr().err
    assert [said.count(f"{name}: not readable as a picture") for name in names] == [1, 1]
    # Known by now, it is the same again, and nobody is told twice.
    assert same(fed(used, copy, rows()), found) and "left out" not in capfd.readouterr().err


@pytest.mark.parametrize("first", [1, 2, 5])
def test_after_a_resume_the_rows_are_the_same(assembly: Assembly, copy: Path, first: int) -> None:
    spoil(copy, FIRST[1], FIRST[6], *(int(index) for index in epoch_order(0, 0, 36)[20:22]))
    whole = fed(opened(assembly, copy), copy, rows())
    assert same(fed(opened(assembly, copy), copy, rows(first=first)), whole[first:])


@pytest.mark.parametrize("world_size", [2, 4])
def test_any_number_of_ranks_leaves_out_the_same(
    assembly: Assembly, copy: Path, world_size: int
) -> None:
    spoil(copy, *FIRST[:5])
    alone = fed(opened(assembly, copy), copy, rows())
    each = [fed(opened(assembly, copy), copy, rows(rank, world_size)) for rank in range(world_size)]
    for step, (images, labels, valid) in enumerate(alone):
        shared = [np.concatenate(parts) for parts in zip(*(one[step] for one in each), strict=True)]
        assert np.array_equal(shared[2], valid) and np.array_equal(shared[1], labels)
        assert np.array_equal(shared[0][valid], images[valid])
    assert not alone[0][2].any() and alone[1][2].sum() == 3


def test_twin_fail_names_the_file(assembly: Assembly, copy: Path) -> None:
    (name,) = spoil(copy, FIRST[1])
    with pytest.raises(ClustersegError, match=f"{name}: not readable as a picture"):
        fed(opened(assembly, copy), copy, rows(), on_unreadable="fail")


def test_a_sample_that_stands_in_may_be_bad_itself(assembly: Assembly, copy: Path) -> None:
    spoil(copy, 0, 1)
    nothing = np.full((2, 4), PADDING)
    assert not any(valid.any() for _, _, valid in fed(opened(assembly, copy), copy, nothing))


def test_too_many_are_no_accident(assembly: Assembly, copy: Path) -> None:
    spoil(copy, *range(11))
    with pytest.raises(ClustersegError, match="11 of 36 samples can't be used, more than the 10"):
        fed(opened(assembly, copy), copy, rows())


def test_masks_and_the_validation_part_count_too(assembly: Assembly, copy: Path) -> None:
    used = opened(assembly, copy)
    part = used.dataset.train
    whole = class_counts(part, 11)
    part.samples[FIRST[0]].mask.write_bytes(b"no mask")
    assert fed(used, copy, rows())[0][2].tolist() == [False, True, True, True]
    with pytest.raises(ClustersegError, match="not readable"):
        class_counts(part, 11)
    fewer = class_counts(part, 11, skip=True)
    assert sum(fewer) < sum(whole) and all(a <= b for a, b in zip(fewer, whole, strict=True))
    spoil(copy, 3, part="val")
    seen = 0
    with validation_batches(spec(copy), used, rank=0, world_size=1) as parts:
        while parts.left:
            valid = parts.current(lambda waited: False)[2]
            seen += int(valid.numpy().sum())
            parts.done()
    assert seen == 8


def test_a_log_on_a_full_disk_ends_nothing(
    assembly: Assembly, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, why = Unreadable(), ClustersegError("bad", code="c", exit_code=ExitCode.FAILED)
    went_on = False
    with suppress(OSError), Path("/dev/full").open("w", buffering=1) as full:  # as it is closed
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", full)
            found.leave_out(assembly.dataset.train, 3, why)
        went_on = True
    assert went_on
    assert found.without(assembly.dataset.train, np.array([2, 3])).tolist() == [2, PADDING]


def test_the_size_is_that_of_the_first_picture_that_can_be_read(copy: Path) -> None:
    spoil(copy, 0)
    assert open_dataset(spec(copy, size=None).data, 255).size == (32, 48)
    with pytest.raises(ClustersegError, match="not readable"):
        open_dataset(spec(copy, size=None, on_unreadable="fail").data, 255)


@pytest.mark.parametrize(
    ("number", "own"), [(None, True), (errno.ENOENT, False), (errno.ESTALE, False)]
)
def test_a_file_systems_bad_moment_is_no_bad_file(
    copy: Path, assembly: Assembly, monkeypatch: pytest.MonkeyPatch, number: int | None, own: bool
) -> None:
    """It may be gone after a resume, which would then train on other samples."""
    spoil(copy, FIRST[1])

    def fail(*_: object) -> None:
        raise OSError("truncated") if number is None else OSError(number, "x")

    monkeypatch.setattr("clusterseg.data.files.Image.open", fail)
    with pytest.raises(ClustersegError) as caught:
        picture_size(copy / "any")
    assert is_of_the_file(caught.value) == own
    if not own:
        with pytest.raises(ClustersegError, match=r"not readable|no such file"):
            fed(opened(assembly, copy), copy, rows())


@pytest.fixture
def attempts(assembly: Assembly, copy: Path, tmp_path: Path) -> Callable[[str], Attempts]:
    fresh = {name: np.array(one.numpy()) for name, one in assembly.state.variables.items()}

    def make(name: str) -> Attempts:
        values = job(copy, epochs=2)
        values["train"]["data"]["on_unreadable"] = "skip"
        return Attempts(Run(tmp_path / name, values), opened(assembly, copy), fresh)

    return make


def test_a_run_ends_without_them_and_stopped_anywhere_it_ends_bit_equal(
    attempts: Callable[[str], Attempts], copy: Path
) -> None:
    spoil(copy, *FIRST[:4], FIRST[6])  # the first global batch has none left
    whole = attempts("whole")
    assert whole.attempt() is None
    assert whole.run.windows(attempt=0)[0].images == 0
    windows = whole.run.windows(attempt=0)
    assert sum(one.images for one in windows) == sum(one.all_images for one in windows) == 2 * 31
    # Nor do they count in the speed: in the table, and on the board.
    for entry in list_checkpoints(whole.run.paths.checkpoints)[-1].header.history:
        assert round(entry["images_per_second"] * entry["seconds"], 6) == 31
    assert window_points(windows[0])["images_per_second"] == 0
    again = attempts("again")
    for look in (1, 3, 9):  # after the first step, and in a row that has a bad one before it
        again.assembly = with_fields(again.assembly, unreadable=Unreadable())  # a new process
        assert again.attempt(StopAt(look)) == "SIGUSR1"
    again.assembly = with_fields(again.assembly, unreadable=Unreadable())
    assert again.attempt() is None
    assert again.final() == whole.final()


def test_a_global_batch_of_none_moves_no_statistics(
    attempts: Callable[[str], Attempts], copy: Path
) -> None:
    spoil(copy, *FIRST[:4])
    run = attempts("run")
    before = {one.path: np.array(one.numpy()) for one in run.assembly.state.statistics}
    assert run.attempt(StopAt(1)) == "SIGUSR1"
    assert list_checkpoints(run.run.paths.checkpoints)[-1].header.step == 1
    for one in run.assembly.state.statistics:
        assert np.array_equal(one.numpy(), before[one.path]), one.path
    assert run.attempt(StopAt(1)) == "SIGUSR1"  # the twin: a step with pictures
    assert any(
        not np.array_equal(one.numpy(), before[one.path]) for one in run.assembly.state.statistics
    )


def test_two_ranks_leave_out_what_either_can_not_read(copy: Path, tmp_path: Path) -> None:
    names = spoil(copy, *FIRST)  # the whole first global batch of 2 ranks × 4
    values = job(copy, epochs=1)
    values["train"]["data"]["on_unreadable"] = "skip"
    run = Run(tmp_path / "run", values, ranks=2, communicator="mpi")
    assert run.run() == 0, run.log()
    logs = run.log(0) + run.log(1)
    # Twice where it was to stand in for a rank that had none left.
    told = {logs.count(f"{name}: not readable as a picture") for name in names}
    assert told <= {1, 2}, logs
    seen = [[one.images for one in run.windows(rank)] for rank in (0, 1)]
    assert seen[0][0] == seen[1][0] == 0 and sum(map(sum, seen)) == 36 - 8
    together = [[one.all_images for one in run.windows(rank)] for rank in (0, 1)]
    assert together[0] == together[1] == [a + b for a, b in zip(*seen, strict=True)]
