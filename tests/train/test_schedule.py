"""The learning rate as a function of the step."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterseg.spec.model import OptimizerSpec, ScheduleSpec
from clusterseg.spec.tables import TABLES
from clusterseg.train.schedule import SCHEDULES, base_learning_rate, learning_rate, rate_scale

POLYNOMIAL = ScheduleSpec(name="polynomial", power=0.9, warmup_epochs=1)


def rate(spec: ScheduleSpec, step: int, steps_per_epoch: int = 10, epochs: int = 5) -> float:
    return learning_rate(spec, 0.5, step=step, steps_per_epoch=steps_per_epoch, epochs=epochs)


def test_the_base_is_scaled_by_the_ranks_only_where_asked() -> None:
    assert base_learning_rate(OptimizerSpec(learning_rate=0.1), 8) == pytest.approx(0.8)
    unscaled = OptimizerSpec(learning_rate=0.1, scale_with_ranks=False)
    assert base_learning_rate(unscaled, 8) == 0.1


def test_constant_stays() -> None:
    assert {rate(ScheduleSpec(), step) for step in range(50)} == {0.5}


def test_warm_up_is_linear_and_ends_at_the_base() -> None:
    assert [rate(POLYNOMIAL, step) for step in range(10)] == pytest.approx(
        [0.05 * (step + 1) for step in range(10)]
    )


def test_the_polynomial_begins_at_the_base_and_follows_its_formula() -> None:
    assert rate(POLYNOMIAL, 10) == 0.5
    assert rate(POLYNOMIAL, 30) == pytest.approx(0.5 * 0.5**0.9)
    assert rate(POLYNOMIAL, 49) == pytest.approx(0.5 * (1 / 40) ** 0.9)


@given(
    power=st.floats(0.1, 4),
    warmup=st.floats(0, 10),
    steps_per_epoch=st.integers(1, 50),
    epochs=st.integers(1, 20),
)
def test_it_rises_then_falls_and_is_above_zero_within_the_run(
    power: float, warmup: float, steps_per_epoch: int, epochs: int
) -> None:
    spec = ScheduleSpec(name="polynomial", power=power, warmup_epochs=warmup)
    rates = [rate(spec, step, steps_per_epoch, epochs) for step in range(steps_per_epoch * epochs)]
    top = min(round(warmup * steps_per_epoch), len(rates) - 1)
    assert all(a < b for a, b in pairwise(rates[:top]))
    assert all(a > b for a, b in pairwise(rates[top:]))
    assert 0 < min(rates) <= max(rates) <= 0.5 * (1 + 1e-12)


def test_a_run_made_shorter_for_its_resume_has_a_rate_of_zero_not_an_error() -> None:
    assert rate(POLYNOMIAL, 80) == 0.0


def schedule(name: str, warmup_epochs: float = 0, **options: float) -> ScheduleSpec:
    return ScheduleSpec(name=name, warmup_epochs=warmup_epochs, options=options)


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        # 10 steps an epoch, 5 epochs, base 0.5
        (schedule("polynomial", min_learning_rate=0.1), {0: 0.5, 25: 0.1 + 0.4 * 0.5**0.9}),
        (schedule("cosine"), {0: 0.5, 25: 0.25, 10: 0.25 * (1 + 0.809016994)}),
        (schedule("cosine", min_learning_rate=0.1), {0: 0.5, 25: 0.3}),
        (schedule("cosine", 1), {9: 0.5, 10: 0.5, 30: 0.25}),
        (schedule("cyclic"), {0: 0.125, 10: 0.3125, 20: 0.5, 30: 0.3125, 40: 0.125, 41: 0.14375}),
        (schedule("cyclic", cycle_epochs=2, min_learning_rate=0.1), {0: 0.1, 5: 0.3, 10: 0.5}),
        (schedule("cyclic", 1), {4: 0.0625, 9: 0.125, 10: 0.125, 30: 0.5}),
        (schedule("step"), {0: 0.5, 49: 0.5}),
        (schedule("step", every_epochs=2, factor=0.5), {19: 0.5, 20: 0.25, 39: 0.25, 40: 0.125}),
        (schedule("three_step_decay"), {16: 0.5, 17: 0.05, 33: 0.05, 34: 0.005, 40: 0.0005}),
    ],
)
def test_each_schedule_by_hand(spec: ScheduleSpec, wanted: dict[int, float]) -> None:
    assert {step: rate(spec, step) for step in wanted} == pytest.approx(wanted)


def test_the_decays_of_a_short_run_come_in_order_and_none_before_the_first_step() -> None:
    spec = schedule("three_step_decay")
    assert [rate(spec, step, 6, 1) for step in range(6)] == pytest.approx(
        [0.5, 0.5, 0.05, 0.05, 0.005, 0.005]
    )
    assert [rate(spec, step, 3, 2) for step in range(6)] == pytest.approx(
        [0.5, 0.5, 0.05, 0.005, 0.0005, 0.0005]
    )


def test_the_lowest_rate_is_scaled_as_the_highest() -> None:
    spec = schedule("cosine", min_learning_rate=0.1)
    optimizer = OptimizerSpec(learning_rate=0.5)
    one, eight = (
        [
            learning_rate(
                spec, base_learning_rate(optimizer, ranks), step=step, steps_per_epoch=10,
                epochs=5, scale=rate_scale(optimizer, ranks),
            )
            for step in range(50)
        ]
        for ranks in (1, 8)
    )  # fmt: skip
    assert eight == pytest.approx([8 * each for each in one])
    assert 0.1 < one[-1] < 0.101


@given(
    name=st.sampled_from(sorted(SCHEDULES)),
    low=st.none() | st.floats(0, 0.5),
    warmup=st.floats(0, 10),
    steps_per_epoch=st.integers(1, 50),
    epochs=st.integers(1, 20),
)
def test_every_schedule_stays_between_its_lowest_and_highest_rate(
    name: str, low: float | None, warmup: float, steps_per_epoch: int, epochs: int
) -> None:
    takes_it = "min_learning_rate" in TABLES["schedules"][name].options
    options = {"min_learning_rate": low} if takes_it and low is not None else {}
    spec = schedule(name, warmup, **options)
    rates = [rate(spec, step, steps_per_epoch, epochs) for step in range(steps_per_epoch * epochs)]
    top = round(warmup * steps_per_epoch)
    assert all(a <= b for a, b in pairwise(rates[:top]))
    assert max(rates) <= 0.5 * (1 + 1e-9)
    after = rates[top:]  # none if all of the run is warm-up
    assert all(options.get("min_learning_rate", 0.0) * (1 - 1e-9) <= each for each in after)
    if 0 < top < len(rates) and not name.startswith(("step", "three")):
        assert rates[top - 1] == pytest.approx(rates[top])  # warm-up ends where it begins


def test_an_unknown_schedule_is_an_error() -> None:
    with pytest.raises(ValueError, match="zigzag"):
        rate(ScheduleSpec(name="zigzag"), 0)
