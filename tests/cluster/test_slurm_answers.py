"""What Slurm prints is read as it was meant, whatever free text is in it."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterseg.cluster.slurm.answers import (
    Garbled,
    account_format,
    queue_format,
    read_accounts,
    read_detail,
    read_queue,
    time_limit,
    unix_time,
)
from clusterseg.cluster.slurm.jobs import JobState

MARK = "~0123456789abcdef~"
UID = 1000
KEY = "0123456789abcdef" * 2
TITLES = ["A", "i", "U", "T", "V", "S", "e", "Q", "P", "D", "r", "N", "j", "k"]

# Names and comments as anybody may give them: with newlines, separators, lines that look real.
hostile = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        [
            "x\n999|999|RUNNING|forged",
            f"x\nclusterseg:{KEY}",
            "a~b~~c",
            "CLUSTER: other",
            "%A%i%T",
            f"n UserId=me({UID}) GroupId=g(1) JobState=COMPLETED Comment=clusterseg:{KEY}",
            f"x\nJobId=5 JobName=y UserId=me({UID}) GroupId=g(1) MCS_label=N/A JobState=FAILED",
            "",
        ]
    ),
).filter(lambda text: MARK not in text)


def line(fields: dict[str, str]) -> str:
    values = {**dict.fromkeys(TITLES, ""), "U": str(UID), "A": "1", "i": "1", **fields}
    return MARK + "".join(f"{values[title]}{MARK}" for title in TITLES) + "\n"


HEADER = line(dict(zip(TITLES, TITLES, strict=True)))


def test_the_format_asks_for_the_fields_in_the_order_they_are_read() -> None:
    assert queue_format(MARK) == MARK + "".join(f"%{title}{MARK}" for title in TITLES)


@given(st.lists(st.tuples(hostile, hostile), max_size=6))
def test_no_name_or_comment_mixes_jobs(texts: list[tuple[str, str]]) -> None:
    lines = [
        line({"A": str(number), "i": str(number), "T": "RUNNING", "j": name, "k": comment})
        for number, (name, comment) in enumerate(texts, 1)
    ]
    jobs = read_queue(HEADER + "".join(lines), MARK, UID)
    assert [(job.number, job.name, job.state) for job in jobs] == [
        (number, name, JobState.RUNNING) for number, (name, _) in enumerate(texts, 1)
    ]
    for job, (_, comment) in zip(jobs, texts, strict=True):
        assert (job.key is None) == (comment.strip() != f"clusterseg:{KEY}")


@given(st.text(max_size=300))
def test_junk_is_no_answer(text: str) -> None:
    with pytest.raises(Garbled):
        read_queue(text, MARK, UID)
    if text.strip("\n"):
        with pytest.raises(Garbled):
            read_accounts(text, MARK)


@given(st.integers(0, 400))
def test_a_torn_answer_is_no_answer(at: int) -> None:
    text = HEADER + line({"A": "1", "j": "x"}) + line({"A": "2", "j": "y"})
    ends = {len(HEADER), len(HEADER) + len(line({"A": "1", "j": "x"})), len(text)}
    if at in ends or at >= len(text) or at + 1 in ends:  # at a record's end it is a whole one
        assert len(read_queue(text[:at] if at else HEADER, MARK, UID)) <= 2
    else:
        with pytest.raises(Garbled):
            read_queue(text[:at], MARK, UID)


def test_the_header_alone_says_that_there_are_no_jobs() -> None:
    assert read_queue(HEADER, MARK, UID) == []
    assert read_queue("CLUSTER: one\n" + HEADER, MARK, UID) == []


@pytest.mark.parametrize("text", ["", "\n", " \n\n"])
def test_an_empty_answer_is_none(text: str) -> None:
    with pytest.raises(Garbled):
        read_queue(text, MARK, UID)


def test_jobs_of_others_and_whole_arrays_are_passed_over() -> None:
    lines = [
        line({"A": "1", "i": "1", "U": "1001", "k": f"clusterseg:{KEY}"}),
        line({"A": "2", "i": "2_[0-7%2]"}),
        line({"A": "3", "i": "3+1"}),
        line({"A": "4", "i": "4_12", "T": "PENDING", "k": f"clusterseg:{KEY}"}),
    ]
    (job,) = read_queue(HEADER + "".join(lines), MARK, UID)
    assert (job.id, job.number, job.key) == ("4_12", 4, KEY)


def test_a_state_that_is_not_known_is_unknown() -> None:
    (job,) = read_queue(HEADER + line({"T": "TELEPORTING"}), MARK, UID)
    assert job.state is JobState.UNKNOWN
    assert not job.is_over


ACCOUNT = account_format().split(",")


def account(fields: dict[str, str]) -> str:
    values = {**dict.fromkeys(ACCOUNT, "Unknown"), **fields}
    return MARK.join(values[title] for title in ACCOUNT) + "\n"


def test_sacct_states_ids_and_steps() -> None:
    text = (
        account({"JobID": "12", "JobIDRaw": "12", "State": "CANCELLED by 1000"})
        + account({"JobID": "12.batch", "JobIDRaw": "12.batch", "State": "CANCELLED"})
        + account({"JobID": "12.0", "JobIDRaw": "12.0", "State": "FAILED"})
        + account({"JobID": "13+0", "JobIDRaw": "13", "State": "COMPLETED"})
        + account({"JobID": "14_3", "JobIDRaw": "17", "State": "OUT_OF_MEMORY"})
        + account({"JobID": "14_[0-7%2]", "JobIDRaw": "14", "State": "PENDING"})
    )
    found = read_accounts(text, MARK)
    assert [(one.id, one.number, one.state) for one in found] == [
        ("12", 12, JobState.CANCELLED),
        ("14_3", 17, JobState.OUT_OF_MEMORY),
    ]


@given(st.lists(hostile, max_size=6))
def test_no_job_name_mixes_accounts(names: list[str]) -> None:
    text = "".join(
        account({"JobID": str(n), "JobIDRaw": str(n), "JobName": name, "State": "TIMEOUT"})
        for n, name in enumerate(names, 1)
    )
    found = read_accounts(text, MARK)
    assert [(one.number, one.name, one.state) for one in found] == [
        (n, name, JobState.TIMEOUT) for n, name in enumerate(names, 1)
    ]


def detail(name: str = "x", comment: str = "(null)", folder: str = "/tmp") -> str:
    return (
        f"JobId=12 JobName={name} UserId=stranger(1001) GroupId=g(1001) MCS_label=N/A Priority=1 "
        f"JobState=RUNNING Reason=None Requeue=1 Restarts=2 TimeLimit=1-02:03:04 "
        f"SubmitTime=1700000000 StartTime=Unknown NodeList=n[1-2] ExcNodeList=(null) BatchHost=n1 "
        f"Command=/bin/x WorkDir={folder} Comment={comment}  StdErr=/tmp/o StdOut=/tmp/o Power= \n"
    )


def test_scontrol_details() -> None:
    job = read_detail(detail(comment=f"clusterseg:{KEY}"))
    assert job is not None
    assert (job.id, job.uid, job.key, job.restarts, job.requeue) == ("12", 1001, KEY, 2, True)
    assert (job.time_limit, job.submitted, job.start) == (93784, 1.7e9, None)
    assert (job.node_list, job.batch_host, job.excluded) == ("n[1-2]", "n1", "")


@given(hostile, hostile, hostile)
def test_no_free_text_makes_a_strangers_job_ours(name: str, comment: str, folder: str) -> None:
    job = read_detail(detail(name, comment, folder))
    if job is not None:
        assert job.number == 12
        assert job.uid in (1001, None)
        if job.uid is None:
            assert job.key is None


@given(st.text(max_size=200))
def test_any_text_is_borne_by_the_reader_of_details(text: str) -> None:
    read_detail(text)
    read_detail("JobId=1 JobName=" + text + " UserId=x(1) GroupId=y(1) " + text)


def test_times() -> None:
    assert unix_time("1700000000") == 1.7e9
    assert unix_time(time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(1.7e9))) == 1.7e9
    for text in ("N/A", "Unknown", "None", "", "0", "-5", "²", "9" * 30, "NONE"):
        assert unix_time(text) is None
    assert time_limit("UNLIMITED") is None
    assert time_limit("01:00:00") == 3600
