"""The curve of a range test, on curves whose right answer is known."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterseg.runs.lr_find import Ending, Suggestion
from clusterseg.train.lr_curve import Curve, rates

RANGE = rates(1e-6, 10, 141)
PARTS = st.floats(1e-3, 1e3)


def valley(edge: float, *, top: float = 3.0, fall: float = 2.0, blows_up: float = 100.0):
    """Falls along a logistic curve that is steepest at `edge`; explodes at `blows_up` times it."""

    def loss(rate: float) -> float:
        place = math.log10(rate / edge)
        return top - fall / (1 + math.exp(-4 * place)) + (rate / (edge * blows_up)) ** 2

    return loss


def swept(loss, among=RANGE) -> tuple[Curve, Ending | None]:
    curve = Curve()
    for rate in among:
        ended = curve.add(rate, loss(rate))
        if ended is not None:
            return curve, ended
    return curve, None


def suggested(curve: Curve) -> Suggestion:
    found = curve.suggestion()
    assert isinstance(found, Suggestion), found
    return found


@given(st.floats(1e-9, 1e-2), st.floats(1.5, 1e9), st.integers(2, 500))
def test_rates_grow_by_the_same_factor(lowest: float, factor: float, steps: int) -> None:
    found = rates(lowest, lowest * factor, steps)
    assert (found[0], found[-1], len(found)) == (lowest, lowest * factor, steps)
    step = factor ** (1 / (steps - 1))
    assert all(b / a == pytest.approx(step, rel=1e-9) for a, b in itertools.pairwise(found))


@pytest.mark.parametrize("bad", [(0, 1, 5), (1, 1, 5), (1, 2, 1)])
def test_no_range_is_refused(bad: tuple[float, float, int]) -> None:
    with pytest.raises(ValueError, match="no range"):
        rates(*bad)


@given(PARTS, st.integers(1, 141))
def test_a_constant_loss_is_its_own_average_from_the_first_step_on(loss: float, steps: int) -> None:
    curve, ended = swept(lambda _: loss, RANGE[:steps])
    assert ended is None
    assert curve.smooth_losses == pytest.approx([loss] * steps)
    assert curve.suggestion() == (
        "the loss never fell by more than batches differ"
        if steps >= 20
        else f"it ended after {steps} steps"
    )


@given(st.floats(-0.5, 0.5))
def test_a_straight_line_stays_where_it_is(slope: float) -> None:
    """No lag: the smoothed points lie on the line itself."""

    def line(rate: float) -> float:
        return 10 + slope * math.log(rate)

    curve, _ = swept(line)
    wanted = [line(rate) for rate in curve.smooth_rates]
    assert curve.smooth_losses == pytest.approx(wanted, rel=1e-9)


@given(st.floats(1e-4, 1e-1), st.floats(0.5, 5), st.floats(0.1, 0.9))
def test_the_steepest_fall_and_the_minimum_are_found(edge: float, top: float, part: float) -> None:
    curve, _ = swept(valley(edge, top=top, fall=top * part))
    found = suggested(curve)
    assert 0.5 < found.steepest / edge < 2
    assert found.begin <= found.learning_rate <= found.minimum / 10 or (
        found.learning_rate == found.begin
    )
    assert found.begin < edge < found.minimum


@given(st.floats(1e-4, 1e-2), st.floats(0.5, 1.5), st.floats(1, 5))
def test_a_batch_that_stands_out_moves_nothing_far(
    edge: float, decades: float, spike: float
) -> None:
    """After it the smoothed loss falls more steeply than anywhere else."""
    loss = valley(edge, fall=1.0)
    calm, _ = swept(loss)
    hit = min(RANGE, key=lambda rate: abs(math.log10(rate / edge) - decades))
    spiked, ended = swept(lambda rate: loss(rate) + (spike if rate == hit else 0))
    assert ended is not Ending.NOT_FINITE
    assert 0.5 < suggested(spiked).steepest / suggested(calm).steepest < 2
    assert 0.5 < suggested(spiked).begin / suggested(calm).begin < 2


@given(st.floats(1e-4, 1e-2), st.floats(0.15, 0.8))
def test_a_first_batch_with_a_low_loss_is_no_fall(edge: float, dip: float) -> None:
    """The average begins with it, and would have come down by a tenth of the fall at once."""
    loss = valley(edge, fall=1.0)
    calm, _ = swept(loss)
    low, _ = swept(lambda rate: loss(rate) - (dip if rate == RANGE[0] else 0))
    assert 0.5 < suggested(low).begin / suggested(calm).begin < 2
    assert 0.5 < suggested(low).steepest / suggested(calm).steepest < 2


@given(st.floats(1e-4, 1e-1), PARTS)
def test_the_unit_of_the_loss_does_not_matter(edge: float, unit: float) -> None:
    loss = valley(edge)
    one, ended = swept(loss)
    other, other_ended = swept(lambda rate: unit * loss(rate))
    assert ended is other_ended and len(one.losses) == len(other.losses)
    left, right = suggested(one), suggested(other)
    assert right.learning_rate == pytest.approx(left.learning_rate)
    assert right.minimum == pytest.approx(left.minimum)


@given(st.floats(1e-4, 1e-2), st.floats(0.1, 10))
def test_what_is_steep_elsewhere_is_suggested_elsewhere(edge: float, factor: float) -> None:
    one, _ = swept(valley(edge))
    moved, _ = swept(valley(edge * factor), [rate * factor for rate in RANGE])
    ratio = suggested(moved).learning_rate / suggested(one).learning_rate
    assert ratio == pytest.approx(factor, rel=1e-6)


@given(st.lists(st.floats(1, 2), min_size=20, max_size=141))
def test_noise_suggests_no_more_than_the_curve_shows(losses: list[float]) -> None:
    curve, _ = swept(dict(zip(RANGE, losses, strict=False)).__getitem__, RANGE[: len(losses)])
    found = curve.suggestion()
    if isinstance(found, Suggestion):
        assert RANGE[0] <= found.begin <= found.learning_rate <= found.minimum <= RANGE[-1]
        assert max(losses) > min(losses)


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_ends_it_and_is_no_point(loss: float) -> None:
    curve, _ = swept(valley(1e-3), RANGE[:60])
    points = list(curve.losses)
    assert curve.add(RANGE[60], loss) is Ending.NOT_FINITE
    assert curve.losses == points and all(map(math.isfinite, curve.smooth_losses))


@given(st.floats(0.1, 10), st.floats(1.0, 3.99))
def test_it_goes_on_below_four_times_the_best_and_ends_above(best: float, factor: float) -> None:
    curve, ended = swept(lambda rate: best if rate < 1e-3 else factor * best)
    assert ended is None and len(curve.losses) == len(RANGE)
    curve, ended = swept(lambda rate: best if rate < 1e-3 else 8 * best)
    assert ended is Ending.DIVERGED
    assert 1e-3 < curve.rates[-1] < 1e-2
    assert curve.smooth_losses[-1] > 4 * best >= curve.smooth_losses[-2]
