"""Times, sizes and intervals mean what Slurm means, and survive being written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterseg.spec.model import Every
from clusterseg.spec.units import (
    format_interval,
    format_size,
    format_time,
    parse_interval,
    parse_size,
    parse_time,
)

MINUTE, HOUR, DAY = 60, 3600, 86400


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90 * MINUTE),
        ("0090", 90 * MINUTE),
        ("90:30", 90 * MINUTE + 30),
        ("08:00:00", 8 * HOUR),
        ("12:00:00", 12 * HOUR),
        ("100:00:00", 100 * HOUR),
        ("1-12", DAY + 12 * HOUR),
        ("1-12:30", DAY + 12 * HOUR + 30 * MINUTE),
        ("1-12:30:05", DAY + 12 * HOUR + 30 * MINUTE + 5),
        ("0-0:0:1", 1),
        ("0:1", 1),
        ("2-36", 2 * DAY + 36 * HOUR),
        (" 90 ", 90 * MINUTE),
    ],
)
def test_times_are_read_as_sbatch_reads_them(text: str, seconds: int) -> None:
    assert parse_time(text) == seconds


NO_TIMES = """0 0:0 0-0 UNLIMITED infinite -1 -5 1- 1-12: 1:2:3:4 1-1:1:1:1 1.5 12h 1e3 :30 30:
99999999999 9999999-0 x +5 0x10 1_0 \u0661"""


@pytest.mark.parametrize("text", [*NO_TIMES.split(), "", "1 2"])
def test_what_is_no_time_limit_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|leave the key out"):
        parse_time(text)


@given(st.integers(1, 2**31 - 1))
def test_a_written_time_is_read_as_the_same(seconds: int) -> None:
    assert parse_time(format_time(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("64G", 64 * 2**30),
        ("64g", 64 * 2**30),
        ("500M", 500 * 2**20),
        ("500", 500 * 2**20),
        ("1T", 2**40),
        ("2K", 2**11),
    ],
)
def test_sizes_are_read_as_slurm_reads_them(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", [*["0", "0G", "64GB", "1.5G", "-1", "G", "1P"], "64 G", "", "9" * 15 + "T"]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_size(text)


@given(st.integers(1, 2**50))
def test_a_written_size_holds_what_was_asked_for(size: int) -> None:
    assert size <= parse_size(format_size(size)) < size + 1024


@given(st.integers(1, 2**20), st.sampled_from([2**10, 2**20, 2**30, 2**40]))
def test_a_size_in_whole_units_is_exact(number: int, unit: int) -> None:
    assert parse_size(format_size(number * unit)) == number * unit


@pytest.mark.parametrize(
    ("text", "every"),
    [
        ("10m", Every(seconds=600.0)),
        ("90s", Every(seconds=90.0)),
        ("1h", Every(seconds=3600.0)),
        ("1h30m", Every(seconds=5400.0)),
        ("2d", Every(seconds=2 * 86400.0)),
        ("500 steps", Every(steps=500)),
        ("1 step", Every(steps=1)),
        ("500steps", Every(steps=500)),
        ("auto", Every(auto=True)),
    ],
)
def test_intervals(text: str, every: Every) -> None:
    assert parse_interval(text) == every


@pytest.mark.parametrize(
    "text", [*["10", "0m", "-5m", "30m1h", "1.5h", "never", "steps"], "", "0 steps", "10 m"]
)
def test_what_is_no_interval_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a time such as"):
        parse_interval(text)


@given(
    st.one_of(
        st.just(Every(auto=True)),
        st.integers(1, 2**31 - 1).map(lambda seconds: Every(seconds=float(seconds))),
        st.integers(1, 10**9).map(lambda steps: Every(steps=steps)),
    )
)
def test_a_written_interval_is_read_as_the_same(every: Every) -> None:
    assert parse_interval(format_interval(every)) == every
