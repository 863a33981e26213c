"""Strides that are left out become dilations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterseg.models.strides import Step, pads, stages


def test_strides_are_kept_until_the_output_stride_is_reached() -> None:
    assert stages((2, 2, 1, 2, 2, 1), 8) == (
        Step(2, 1, 1),
        Step(2, 1, 1),
        Step(1, 1, 1),
        Step(2, 1, 1),
        Step(1, 1, 2),
        Step(1, 2, 2),
    )
    assert stages((2, 2, 2, 2, 2), 8)[-2:] == (Step(1, 1, 2), Step(1, 2, 4))
    assert all(step.after == 1 for step in stages((2, 2, 2, 2, 2), 32))


@pytest.mark.parametrize(
    ("strides", "output_stride"), [((2, 2), 8), ((2, 3), 4), ((4, 4), 2), ((2, 2, 2), 3)]
)
def test_an_output_stride_that_strides_can_not_give_is_refused(
    strides: tuple[int, ...], output_stride: int
) -> None:
    with pytest.raises(ValueError, match=str(output_stride)):
        stages(strides, output_stride)


def windows(side: int, step: Step) -> list[list[int]]:
    """The places that a kernel of 3 sees, for each of its positions; those outside left out."""
    before, behind = pads(side, step)
    last = before + side + behind - 1 - 2 * step.dilation
    return [
        [place for tap in range(3) if 0 <= (place := start - before + tap * step.dilation) < side]
        for start in range(0, last + 1, step.stride)
    ]


@given(st.integers(1, 70), st.sampled_from([1, 2, 4]))
def test_without_its_stride_a_layer_sees_the_same_places(side: int, dilation: int) -> None:
    """`SAME` of TensorFlow on the map with strides, spread over the map without them."""
    coarse = -(-side // dilation)
    padding = max((-(-coarse // 2) - 1) * 2 + 3 - coarse, 0)
    expected = [
        [
            dilation * place
            for tap in range(3)
            if 0 <= (place := 2 * i - padding // 2 + tap) < coarse
        ]
        for i in range(-(-coarse // 2))
    ]
    fine = windows(side, Step(1, dilation, 2 * dilation))
    assert len(fine) == side
    assert fine[:: 2 * dilation] == expected
    if dilation == 1:
        assert windows(side, Step(2, 1, 1)) == expected
