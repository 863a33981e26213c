"""What a checkpoint must share with the job that goes on from it."""

from __future__ import annotations

import msgspec
import pytest

from clusterseg.runs.checkpoints import CheckpointError
from clusterseg.runs.records import CheckpointHeader
from clusterseg.spec.model import DataSpec, ModelSpec, OptimizerSpec, TrainSpec
from clusterseg.train.identity import check_fits, identity

SPEC = TrainSpec(model=ModelSpec(name="unet"), data=DataSpec(format="camvid", root="/a"), seed=4)


def said_by(spec: TrainSpec, **facts: object) -> dict[str, str]:
    given = {"classes": 11, "size": (32, 48), "samples": 36, "listed": "0a", **facts}
    return identity(spec, **given)  # type: ignore[arg-type]


def header(inside: int = 0, global_batch: int = 8) -> CheckpointHeader:
    return CheckpointHeader(
        epoch=1, step=9, step_in_epoch=inside, attempt=0, t=0, global_batch=global_batch,
        identity=said_by(SPEC),
    )  # fmt: skip


def test_a_moved_data_set_another_rate_and_more_epochs_fit() -> None:
    moved = msgspec.structs.replace(
        SPEC, data=DataSpec(format="camvid", root="/b"), epochs=99,
        optimizer=OptimizerSpec(learning_rate=9.0),
    )  # fmt: skip
    check_fits("w", header(), said_by(moved))


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"classes": 19}, "model.classes is 11 there, 19 now"),
        ({"size": (64, 48)}, "data.size is 32x48 there, 64x48 now"),
        ({"samples": 35}, "data samples is 36 there, 35 now"),
        ({"listed": "0b"}, "train.data.root: another list of samples there"),
    ],
)
def test_each_difference_is_named(facts: dict[str, object], said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        check_fits("w", header(), said_by(SPEC, **facts))


def test_all_differences_are_named_at_once_and_missing_ones_too() -> None:
    other = msgspec.structs.replace(SPEC, seed=5, model=ModelSpec(name="fastscnn"))
    with pytest.raises(CheckpointError) as caught:
        check_fits("w", header(), {**said_by(other), "new key": "x"})
    for said in ("seed is 4", "model.name is unet there, fastscnn", "new key is missing there"):
        assert said in caught.value.message


def test_another_global_batch_fits_anywhere() -> None:
    for inside in (0, 3):
        check_fits("w", header(inside=inside, global_batch=16), said_by(SPEC))


def test_force_passes_what_leaves_the_tensors_alone_and_says_so() -> None:
    grown = said_by(SPEC, samples=40)
    (passed,) = check_fits("w", header(), grown, force=True)
    assert str(passed) == "data samples is 36 there, 40 now"
    with pytest.raises(CheckpointError, match="36 there, 40 now, in the middle of an epoch"):
        check_fits("w", header(inside=3), grown, force=True)
    with pytest.raises(CheckpointError) as caught:
        check_fits("w", header(), {**grown, "model.name": "segnet"}, force=True)
    assert "data samples" not in caught.value.message  # what was passed is in nobody's way
