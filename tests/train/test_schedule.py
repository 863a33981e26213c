"""The learning rate as a function of the step."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterseg.spec.model import OptimizerSpec, ScheduleSpec
from clusterseg.train.schedule import base_learning_rate, learning_rate

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


def test_an_unknown_schedule_is_an_error() -> None:
    with pytest.raises(ValueError, match="zigzag"):
        rate(ScheduleSpec(name="zigzag"), 0)
