"""What a checkpoint's header says of the job that it fits."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from clusterseg.runs.fit import advice, differences, fits_of, mismatch, spec_identity
from clusterseg.runs.records import CheckpointHeader
from clusterseg.spec.model import DataSpec, LossSpec, ModelSpec, OptimizerSpec, TrainSpec

SPEC = TrainSpec(
    model=ModelSpec(name="unet", classes=11),
    data=DataSpec(format="camvid", root="/a", size=(32, 48)),
    seed=4,
)
ALWAYS = {
    "model.name": replace(SPEC, model=ModelSpec(name="fastscnn", classes=11)),
    "model.options": replace(SPEC, model=ModelSpec(name="unet", classes=11, options={"a": 1})),
    "model.classes": replace(SPEC, model=ModelSpec(name="unet", classes=12)),
    "optimizer.name": replace(SPEC, optimizer=OptimizerSpec(name="adam")),
    "optimizer.momentum": replace(SPEC, optimizer=OptimizerSpec(momentum=0)),
    "ema": replace(SPEC, ema=0.99),
    "freeze_batch_norm": replace(SPEC, freeze_batch_norm=True),
    "precision": replace(SPEC, precision="float16"),
}
NEVER_IN_TENSORS = {
    "data.size": replace(SPEC, data=replace(SPEC.data, size=(64, 48))),
    "loss.ignore": replace(SPEC, loss=LossSpec(ignore=None)),
    "precision": replace(SPEC, precision="bfloat16"),
}
ORDER = {
    "seed": replace(SPEC, seed=5),
    "data.format": replace(SPEC, data=replace(SPEC.data, format="voc2012")),
}


def header(spec: TrainSpec = SPEC, inside: int = 0, **more: str) -> CheckpointHeader:
    identity = {**spec_identity(spec), "data samples": "36", **more}
    return CheckpointHeader(
        epoch=1, step=9, step_in_epoch=inside, attempt=0, t=0, identity=identity
    )


def keys(spec: TrainSpec, at: CheckpointHeader, *, force: bool) -> set[str]:
    return {one.key for one in fits_of(spec, force=force)(at)}


def test_the_same_job_fits_and_so_does_what_changes_no_tensor_and_no_order() -> None:
    other: list[Any] = [
        SPEC,
        replace(SPEC, data=replace(SPEC.data, root="/b"), epochs=99, batch_size=2),
        replace(SPEC, optimizer=OptimizerSpec(learning_rate=9.0, momentum=0.5)),
        # Not told here, but by the data set: that is compared where it is opened.
        replace(SPEC, model=ModelSpec(name="unet"), data=DataSpec(format="camvid", root="/a")),
    ]
    for spec in other:
        assert keys(spec, header(inside=3), force=False) == set()


def test_ema_by_any_decay_is_the_same_tensors() -> None:
    assert keys(replace(SPEC, ema=0.9), header(replace(SPEC, ema=0.999)), force=False) == set()


@pytest.mark.parametrize("key", sorted(ALWAYS))
@pytest.mark.parametrize("force", [False, True])
def test_other_tensors_can_not_be_forced(key: str, force: bool) -> None:
    assert key in keys(ALWAYS[key], header(), force=force)


@pytest.mark.parametrize("key", sorted(NEVER_IN_TENSORS))
@pytest.mark.parametrize("inside", [0, 3])
def test_what_leaves_the_tensors_as_they_are_can_be_forced(key: str, inside: int) -> None:
    assert keys(NEVER_IN_TENSORS[key], header(inside=inside), force=False) == {key}
    assert keys(NEVER_IN_TENSORS[key], header(inside=inside), force=True) == set()


@pytest.mark.parametrize("key", sorted(ORDER))
def test_the_order_of_the_samples_can_be_changed_at_an_epochs_end_alone(key: str) -> None:
    assert keys(ORDER[key], header(), force=False) == {key}
    assert keys(ORDER[key], header(), force=True) == set()
    assert keys(ORDER[key], header(inside=3), force=True) == {key}
    (one,) = fits_of(ORDER[key], force=True)(header(inside=3))
    assert str(one).endswith("now, in the middle of an epoch")


@pytest.mark.parametrize("inside", [0, 3])
def test_another_number_of_samples_is_another_order(inside: int) -> None:
    (one,) = differences(header(inside=inside), {"data samples": "37"})
    assert one.forceable == (inside == 0)


@pytest.mark.parametrize("inside", [0, 3])
def test_another_list_of_as_many_samples_is_another_order(inside: int) -> None:
    at = header(inside=inside, **{"data list": "0a"})
    (one,) = differences(at, {"data samples": "36", "data list": "0b"})
    assert "another list of samples" in str(one) and "0a" not in str(one)
    assert one.forceable == (inside == 0)
    (longer,) = differences(at, {"data samples": "37", "data list": "0b"})
    assert longer.key == "data samples"
    # One from before there was the key does not tell.
    assert differences(header(inside=inside), {"data samples": "36", "data list": "0b"}) == []


def test_a_file_from_before_there_was_a_key_fits_what_was_there_then() -> None:
    known = {"optimizer.momentum", "ema", "freeze_batch_norm"}
    said = {key: value for key, value in spec_identity(SPEC).items() if key not in known}
    old = CheckpointHeader(epoch=1, step=9, step_in_epoch=0, attempt=0, t=0, identity=said)
    assert keys(SPEC, old, force=False) == set()
    assert keys(replace(SPEC, ema=0.9), old, force=False) == {"ema"}
    # It does not tell whether it has momentum: that shows in the tensors.
    assert keys(replace(SPEC, optimizer=OptimizerSpec(momentum=0)), old, force=False) == set()


def test_a_key_that_was_always_there_is_missed() -> None:
    (one,) = differences(header(), {"new key": "x"})
    assert str(one) == "new key is missing there, x now" and not one.forceable


def test_a_command_takes_any() -> None:
    assert fits_of(None, force=False)(header()) == ()


def test_the_error_names_every_key_and_says_what_force_would_pass() -> None:
    other = replace(ALWAYS["optimizer.name"], seed=5, loss=LossSpec(ignore=None))
    error = mismatch("w", differences(header(inside=3), spec_identity(other)))
    assert error.code == "checkpoint-mismatch"
    for said in (
        "optimizer.name is sgd there, adam now",
        "seed is 4 there, 5 now, in the middle of an epoch",
        "loss.ignore is 255 there, null now",
    ):
        assert said in error.message
    assert error.help is not None
    assert "--force would pass loss.ignore, and nothing else of it" in error.help
    assert "--force passes seed at an epoch's end only" in error.help


def test_force_is_offered_where_it_is_enough_and_only_there() -> None:
    assert "--force" in advice(differences(header(), spec_identity(ORDER["seed"])))
    for spec in ALWAYS.values():
        assert "--force" not in advice(differences(header(), spec_identity(spec)))
