"""Host files: those of every MPI are read, what contradicts is refused with its place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterseg.hostlist import with_counts
from clusterseg.plan.dialect import hostfile_text
from clusterseg.plan.host_list import hosts_override, read_hosts
from clusterseg.plan.model import HostfileFormat
from clusterseg.spec.errors import SpecError

FORMATS = ("{host} slots={count}", "{host}:{count}", "{host} slots={count} max_slots={count}")
names = st.from_regex(r"[a-z]{1,4}(-[a-z0-9]{1,3})?[0-9]{0,3}", fullmatch=True)
hosts = st.dictionaries(names, st.integers(1, 999_999), min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("n1\nn2\n", {"n1": None, "n2": None}),
        ("n1 slots=4\nn2 slots=2\n", {"n1": 4, "n2": 2}),
        ("n1:4\nn2:2", {"n1": 4, "n2": 2}),
        ("n2:2\nn1:4\n", {"n2": 2, "n1": 4}),
        (
            "# all\n\n  n1 slots = 4   # the first\n\t\nn2\tslots=2 max_slots=8\n",
            {"n1": 4, "n2": 2},
        ),
        ("n1 slots=4\r\nn2 slots=2\r\n", {"n1": 4, "n2": 2}),
        ("n1 max-slots=8 slots=4", {"n1": 4}),
        ("n1:4 max_slots=8", {"n1": 4}),
        ("n1\nn2\nn1\nN1\n", {"n1": 3, "n2": 1}),
        ("n1.site.org:2\nn1.other.org:2\n10.0.0.1:1\n", None),
        ("a_b-c:1", {"a_b-c": 1}),
    ],
)
def test_what_a_host_file_says(text, found):
    if found is None:
        found = {"n1.site.org": 2, "n1.other.org": 2, "10.0.0.1": 1}
    read = read_hosts(text, "hosts")
    assert list(read.items()) == list(found.items())


@pytest.mark.parametrize(
    ("text", "message", "place"),
    [
        ("n1:x", "`x` for the ranks of n1", "hosts:1:4"),
        ("n1:2:3", "`2:3` for the ranks of n1", "hosts:1:4"),
        ("n1:0", "`0` for the ranks", "hosts:1:4"),
        ("n1:-1", "`-1` for the ranks", "hosts:1:4"),
        ("n1:", "`` for the ranks", "hosts:1:4"),
        ("# x\n  n1 slots=many", "`many` for `slots`", "hosts:2:6"),
        ("n1 slots=0", "`0` for `slots`", "hosts:1:4"),
        ("n1 slots", "`slots` after a host name", "hosts:1:4"),
        ("n1 slotz=4", "`slotz=4` after a host name", "hosts:1:4"),
        ("n1 n2", "`n2` after a host name", "hosts:1:4"),
        ("n1:4 slots=4", "`slots` besides another number", "hosts:1:6"),
        ("n1 slots=8 max_slots=4", "n1 has 8 slots, but max_slots = 4", "hosts:1:1"),
        ("n1 max_slots=4", "n1 has `max_slots`, but no `slots`", "hosts:1:1"),
        ("n1:2\nn2:2\nn1:4", "n1 is named again: it stands in line 1", "hosts:3:1"),
        ("n1:2\nN1:4", "N1 is named again: it stands in line 1", "hosts:2:1"),
        ("n1 slots=2\nn2", "n2 has no number of ranks, n1 has one", "hosts:2:1"),
        ("n1:2\nn1.site.org:2", "n1 and n1.site.org are the same host", "hosts:2:1"),
        ("$(id):2", "`$(id)` is not a host name", "hosts:1:1"),
        ("ada@n1:2", "`ada@n1` is not a host name", "hosts:1:1"),
        ("-n1", "`-n1` is not a host name", "hosts:1:1"),
        ("=4", "`=4` is not a host name", "hosts:1:1"),
        ("", "the file names no host", "hosts"),
        ("# nothing\n", "the file names no host", "hosts"),
    ],
)
def test_what_is_refused_has_its_place(text, message, place):
    with pytest.raises(SpecError) as caught:
        read_hosts(text, "hosts")
    said = caught.value.render()
    assert message in said
    assert f"--> {place}" in said
    assert caught.value.problems[0].help


def test_every_mistake_is_told_at_once():
    with pytest.raises(SpecError) as caught:
        read_hosts("n1:x\nn2:2\nn3 slots=y\n", "hosts")
    assert [str(problem.place) for problem in caught.value.problems] == ["hosts:1:4", "hosts:3:4"]


@given(hosts, st.sampled_from(FORMATS))
def test_what_is_written_for_an_mpi_is_read_again(counts, line):
    text = hostfile_text(HostfileFormat(line=line), counts)
    assert read_hosts(text, "hosts") == counts


@given(st.dictionaries(names, st.integers(1, 5), min_size=1, max_size=8))
def test_a_name_for_each_rank_is_read_again(counts):
    read = read_hosts(hostfile_text(HostfileFormat(line="{host}", per="rank"), counts), "hosts")
    if set(counts.values()) == {1}:
        assert read == dict.fromkeys(counts)
    else:
        assert read == counts


@given(hosts)
def test_the_hosts_of_a_file_as_a_key_of_the_job(counts):
    text = hostfile_text(HostfileFormat(line=FORMATS[0]), counts)
    key, _, value = hosts_override(text, "hosts").partition("=")
    assert key == "resources.hosts"
    assert list(with_counts(value).items()) == list(counts.items())


@given(st.text() | st.text(alphabet="n1: =#\t\r\n-slotmax_"))
def test_any_text_is_read_or_refused(text):
    try:
        read = read_hosts(text, "hosts")
    except SpecError as error:
        assert error.render()
    else:
        assert read
        assert all(count is None or count >= 1 for count in read.values())


def test_a_file_of_a_whole_cluster():
    text = "".join(f"n{number:04} slots=8\n" for number in range(1250))
    assert hosts_override(text, "hosts") == "resources.hosts=n[0000-1249]:8"
