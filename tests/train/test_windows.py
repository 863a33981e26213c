"""Windows: their seconds cover everything but validation."""

from __future__ import annotations

import math
from typing import Any

from clusterseg.train.windows import Windows


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def step(windows: Windows, images: int = 2) -> None:
    windows.add(
        images=images, all_images=2 * images, wait_data=0.5, comm=0.25, loss_sum=6.0,
        weight_sum=2.0,
    )  # fmt: skip


def test_a_window_sums_its_steps_and_the_next_begins_where_it_ended() -> None:
    clock = Clock()
    windows = Windows(3, clock)
    clock.now = 110.0
    windows.restart()  # start-up counts in no window
    for images in (2, 2, 1):
        clock.now += 1.0
        step(windows, images)
    assert windows.seconds == 3.0
    first = windows.cut(epoch=0, step=3, learning_rate=0.1)
    clock.now += 4.0  # a save
    step(windows)
    second = windows.cut(epoch=1, step=4, learning_rate=0.1)
    assert (first.rank, first.step, first.count, first.images, first.seconds) == (3, 3, 3, 5, 3.0)
    assert (first.all_images, second.all_images) == (10, 4)
    assert (first.wait_data, first.comm, first.loss) == (1.5, 0.75, 3.0)
    assert (second.count, second.images, second.seconds, second.epoch) == (1, 2, 4.0, 1)


def test_validation_is_in_no_window() -> None:
    clock = Clock()
    windows = Windows(0, clock)
    windows.leave()
    clock.now += 50.0
    assert windows.enter() == 50.0
    clock.now += 2.0  # a save after it is
    step(windows)
    assert windows.cut(epoch=0, step=1, learning_rate=0.1).seconds == 2.0


def test_a_loss_that_is_not_finite_is_null() -> None:
    windows = Windows(0, Clock())
    nothing: dict[str, Any] = {"images": 0, "all_images": 0, "wait_data": 0, "comm": 0}
    windows.add(**nothing, loss_sum=float("nan"), weight_sum=1)
    assert windows.cut(epoch=0, step=1, learning_rate=0.1).loss is None
    windows.add(**nothing, loss_sum=0, weight_sum=0)
    assert windows.cut(epoch=0, step=2, learning_rate=0.1).loss is None


def test_what_a_window_tells_beside_its_sums() -> None:
    windows = Windows(0, Clock())
    step: dict[str, Any] = {"images": 1, "all_images": 1, "wait_data": 0, "comm": 0}
    for norm, skipped in ((2.0, False), (math.nan, True), (4.0, False)):
        windows.add(**step, loss_sum=1, weight_sum=1, gradient_norm=norm, skipped=skipped)
    told = windows.cut(epoch=0, step=3, learning_rate=0.1, loss_scale=1024.0)
    assert (told.gradient_norm, told.skipped_steps, told.loss_scale) == (3.0, 1, 1024.0)
    windows.add(**step, loss_sum=1, weight_sum=1)
    after = windows.cut(epoch=0, step=4, learning_rate=0.1)
    assert (after.gradient_norm, after.skipped_steps, after.loss_scale) == (None, 0, None)
