"""The position in a run: advancing, completing epochs, the way through a header and back."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from clusterseg.runs.records import CheckpointHeader
from clusterseg.train.progress import Progress
from tests.train.batchings import shared


def header(progress: Progress) -> CheckpointHeader:
    return progress.to_header(
        attempt=1, t=5.0, seed=3, batching=shared(4, 2), identity={"a": "b"},
        schedule={"name": "constant"}, times={},
    )  # fmt: skip


def test_the_last_step_completes_an_epoch_that_waits_for_validation() -> None:
    progress = Progress()
    for _ in range(3):
        progress.advance(2.0, 4.0, global_batch=4, epoch_samples=10)
    assert (progress.epoch, progress.step, progress.step_in_epoch) == (1, 3, 0)
    assert not progress.validated
    entry = progress.complete_epoch(0.5, 0.75, 0.25)
    assert progress.validated
    assert entry == {
        "epoch": 1, "step": 3, "loss": 0.5, "val_loss": 0.5, "val_accuracy": 0.75,
        "val_mean_iou": 0.25, "seconds": 0.0, "learning_rate": None, "images_per_second": None,
        "skipped_steps": 0, "loss_scale": None, "straggler_score": None,
    }  # fmt: skip


def test_names_tell_an_epochs_validated_end_from_everything_else() -> None:
    progress = Progress()
    progress.advance(1, 1, global_batch=4, epoch_samples=8)
    assert progress.checkpoint_name == "weights-0000-0.0000-step-000000001.safetensors"
    progress.advance(1, 1, global_batch=4, epoch_samples=8)
    assert progress.checkpoint_name == "weights-0001-0.0000-step-000000002.safetensors"
    progress.complete_epoch(1, 0.81234, 0.5)
    assert progress.checkpoint_name == "weights-0001-0.8123.safetensors"
    progress.advance(1, 1, global_batch=4, epoch_samples=8)
    assert progress.checkpoint_name == "weights-0001-0.8123-step-000000003.safetensors"


def test_a_worse_epoch_does_not_replace_the_best_also_after_a_resume() -> None:
    progress = Progress(epoch=1, step=10)
    progress.complete_epoch(1, 0.9, 0.5)
    assert progress.best is not None and progress.best["epoch"] == 1
    resumed = Progress.from_header(header(progress))
    resumed.epoch = 2
    resumed.complete_epoch(1, 0.5, 0.5)
    assert resumed.best == progress.best
    resumed.epoch = 3
    resumed.complete_epoch(1, float("nan"), None)
    assert resumed.best == progress.best and resumed.history[-1]["val_accuracy"] is None
    assert resumed.val_accuracy == 0.0


def test_a_step_that_changed_nothing_counts_and_is_remembered() -> None:
    progress = Progress(step=6)
    progress.skip(global_batch=4, epoch_samples=8)
    progress.advance(2.0, 4.0, global_batch=4, epoch_samples=8)
    assert (progress.epoch, progress.step, progress.skipped) == (1, 8, [7])
    assert progress.complete_epoch(None, None, None)["loss"] == 0.5
    for _ in range(2000):
        progress.skip(global_batch=4, epoch_samples=20)
    assert progress.skipped == list(range(1009, 2009))  # the newest: a header must stay short


def test_the_header_brings_everything_back() -> None:
    progress = Progress(
        epoch=2, step=23, step_in_epoch=3, samples_in_epoch=10, loss_sum=0.1 + 0.2,
        weight_sum=1e9 + 1,
    )  # fmt: skip
    progress.seconds, progress.images, progress.skipped_steps = 12.5, 10, 2
    progress.history = [{"epoch": 1, "val_accuracy": 0.3, "val_loss": None}]
    progress.best = {"epoch": 1, "val_accuracy": 0.3, "file": "weights-0001-0.3000.safetensors"}
    progress.skipped = [3, 7]
    text = msgspec.json.encode(header(progress))
    assert Progress.from_header(msgspec.json.decode(text, type=CheckpointHeader)) == progress


def test_a_file_from_before_samples_were_counted_tells_the_place_by_its_steps() -> None:
    now = header(Progress(epoch=2, step=23, step_in_epoch=3, samples_in_epoch=12))
    before = msgspec.structs.replace(now, samples_in_epoch=-1)
    assert Progress.from_header(before) == Progress.from_header(now)


@given(
    count=st.integers(1, 60),
    size=st.integers(1, 12),
    other=st.integers(1, 12),
    steps=st.integers(0, 80),
)
def test_the_schedules_place_is_the_step_until_a_step_has_another_size(
    count: int, size: int, other: int, steps: int
) -> None:
    progress = Progress()
    per_epoch = -(-count // size)
    for step in range(steps):
        assert progress.position(per_epoch, size) == progress.step == step
        progress.advance(1, 1, global_batch=size, epoch_samples=count)
    done = progress.position(per_epoch, size) / per_epoch
    after = -(-count // other)
    now = progress.position(after, other)
    # The part of the run that is done is the same, to within a step of either size.
    assert abs(now / after - done) <= 1 / after + 1 / per_epoch
    while progress.epoch <= steps // per_epoch:
        progress.advance(1, 1, global_batch=other, epoch_samples=count)
        assert now <= progress.position(after, other) <= now + 1
        now = progress.position(after, other)
