"""Slurm's short forms: what they name, and that writing and reading agree."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterseg.hostlist import (
    compress,
    compress_counts,
    counts,
    expand,
    twice_named,
    with_counts,
)


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("n1", ["n1"]),
        ("n[1-3,07-09],x", ["n1", "n2", "n3", "n07", "n08", "n09", "x"]),
        ("n[08-11]", ["n08", "n09", "n10", "n11"]),
        ("rack[1-2]n[0-1]", ["rack1n0", "rack1n1", "rack2n0", "rack2n1"]),
        ("n[5]-ib", ["n5-ib"]),
        ("a.b-c_d, e", ["a.b-c_d", "e"]),
        ("n[098-101]", ["n098", "n099", "n100", "n101"]),
    ],
)
def test_what_a_list_names(text: str, hosts: list[str]) -> None:
    assert expand(text) == hosts


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "n[",
        "n]",
        "n[1-",
        "n[3-1]",
        "n[a]",
        "n[1,]",
        "n[[1]]",
        "n[1-999999999999]",
        "n[\u0661-3]",
    ],
)
def test_what_is_no_list(text: str) -> None:
    with pytest.raises(ValueError):
        expand(text)


def test_a_list_that_would_fill_the_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="hosts"):
        expand("n[1-1000][1-1000]")
    with pytest.raises(ValueError, match="no numbers"):
        expand(f"n[{'0' * 3000}1-9]")  # leading zeros are the width of every name
    with pytest.raises(ValueError, match="counts"):
        counts("1(x99999999999)")


names = st.from_regex(r"[a-z][a-z-]{0,3}(0|[1-9][0-9]{0,3}|0[0-9]{1,3})?", fullmatch=True)


@given(st.lists(names, min_size=1, max_size=30))
def test_writing_and_reading_agree(hosts: list[str]) -> None:
    assert expand(compress(hosts)) == hosts


@given(st.integers(0, 2000), st.integers(1, 300), st.integers(1, 5))
def test_a_range_is_short(first: int, many: int, width: int) -> None:
    hosts = [f"n{number:0{width}d}" for number in range(first, first + many)]
    assert expand(compress(hosts)) == hosts
    assert compress(hosts).count(",") <= 4  # a new range only where a number grows a digit


@pytest.mark.parametrize(
    ("text", "numbers"), [("2(x3),1", [2, 2, 2, 1]), ("4", [4]), ("1,2(x2)", [1, 2, 2])]
)
def test_counts(text: str, numbers: list[int]) -> None:
    assert counts(text) == numbers


@pytest.mark.parametrize("text", ["", "x", "2(x)", "2(3)", "-1", "1,,2"])
def test_what_are_no_counts(text: str) -> None:
    with pytest.raises(ValueError):
        counts(text)


@given(st.text(alphabet="n[]-,0123456789()x ", max_size=30))
def test_junk_is_a_list_or_an_error(text: str) -> None:
    for read in (expand, counts):
        with suppress(ValueError):
            read(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("n[1-3,07]:4", {"n1": 4, "n2": 4, "n3": 4, "n07": 4}),
        ("n[1-2]:4,gpu-a[1-2]-x:2", {"n1": 4, "n2": 4, "gpu-a1-x": 2, "gpu-a2-x": 2}),
        ("n1,n2", {"n1": None, "n2": None}),
    ],
)
def test_hosts_with_their_numbers(text: str, found: dict[str, int | None]) -> None:
    assert with_counts(text) == found


@pytest.mark.parametrize(
    "text", ["n1:", "n1:0", "n1:x", "n1:1:2", "n[1:2]", "n[1-2],n1", "n1:2,n1:2", ":4", "n1:²"]
)
def test_numbers_that_are_none_and_hosts_named_twice(text: str) -> None:
    with pytest.raises(ValueError):
        with_counts(text)


@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,3}[0-9]{0,2}(-[a-z]{1,2})?", fullmatch=True),
        st.integers(1, 4) | st.none(),
        min_size=1,
    )
)
def test_hosts_with_numbers_are_written_as_they_are_read(found: dict[str, int | None]) -> None:
    assert list(with_counts(compress_counts(found)).items()) == list(found.items())


@pytest.mark.parametrize(
    ("hosts", "same"),
    [
        (["n1", "n2"], None),
        (["n1", "n2", "N1"], ("n1", "N1")),
        (["n1.site.org", "n1"], ("n1", "n1.site.org")),
        (["n1.a.org", "n1.b.org"], None),
        (["10.0.0.1", "10.0.0.2"], None),
        (["n1", "n1"], ("n1", "n1")),
    ],
)
def test_names_of_one_host(hosts: list[str], same: tuple[str, str] | None) -> None:
    assert twice_named(hosts) == same
