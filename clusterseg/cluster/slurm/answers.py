"""What squeue, sacct and scontrol print, as values. Pure.

Names and comments of jobs are free text: they may hold newlines, separators, and whole lines
that look like another job. So fields are parted by a mark that nobody could know when he named
his job, and an answer that is not made of whole records of them is no answer at all.
"""

from __future__ import annotations

import re
import time

from msgspec import Struct

from clusterseg.cluster.slurm.jobs import JobDetail, JobFacts, JobState, job_state, key_of

# squeue's fields: the id in numbers and for people, uid, state, submission, start, end, priority,
# partition, nodes, reason, node list, name, comment.
_QUEUE_FIELDS = ("A", "i", "U", "T", "V", "S", "e", "Q", "P", "D", "r", "N", "j", "k")
# sacct's fields; the last one must not be free text, for no mark follows it.
_ACCOUNT_FIELDS = ("JobID", "JobIDRaw", "JobName", "Submit", "Start", "End", "ExitCode", "State")
_JOB_ID = re.compile(r"[0-9]{1,10}(?:_[0-9]{1,10})?")
# What stands between two records; with SLURM_CLUSTERS squeue names the cluster first.
_BETWEEN = re.compile(r"\n?(CLUSTER: [^\n]*\n)?")
_NUMBER = re.compile(r"[0-9]{1,15}")


class Garbled(ValueError):
    """What was printed is no answer: cut off, empty, or something else altogether."""


class AccountFacts(Struct, frozen=True, kw_only=True):
    """A job as sacct has it: its last life. Times are unix seconds, None if not known."""

    id: str
    number: int
    state: JobState
    name: str = ""
    submitted: float | None = None
    start: float | None = None
    end: float | None = None
    exit_code: str = ""


def queue_format(mark: str) -> str:
    """squeue's --format for `read_queue`; `mark` is a new random word without `%`."""
    return mark + "".join(f"%{field}{mark}" for field in _QUEUE_FIELDS)


def read_queue(text: str, mark: str, uid: int) -> list[JobFacts]:
    """The jobs of a user in what squeue printed (with its header, which proves an answer).

    Raises Garbled.
    """
    records = _queue_records(text, mark)
    if not records:
        raise Garbled("not even a header" if not text.strip() else _beginning(text))
    found = (_queued(fields, uid) for fields in records)
    return [facts for facts in found if facts is not None]


def account_format() -> str:
    """sacct's --format for `read_accounts`."""
    return ",".join(_ACCOUNT_FIELDS)


def read_accounts(text: str, mark: str) -> list[AccountFacts]:
    """The jobs in what `sacct --parsable2 --noheader --delimiter=MARK` printed.

    Steps (`12.batch`, `12.0`) and parts of heterogeneous jobs (`12+1`) are passed over. Raises
    Garbled.
    """
    found: dict[str, AccountFacts] = {}
    rest = text
    while rest.strip("\n"):
        fields = rest.lstrip("\n").split(mark, len(_ACCOUNT_FIELDS) - 1)
        if len(fields) != len(_ACCOUNT_FIELDS):
            raise Garbled(_beginning(rest))
        fields[-1], _, rest = fields[-1].partition("\n")
        facts = _accounted(fields)
        if facts is not None:
            found[facts.id] = facts  # without --duplicates, the last life is the only one
    return list(found.values())


def read_detail(text: str) -> JobDetail | None:
    """The job in what `scontrol -o show job ID` printed; None if there is none in it."""
    head = _HEAD.match(text.strip("\n"))
    if head is None:
        return None
    # A name, a path or a comment that holds such an anchor may have made up all the rest.
    forged = len(_ANCHOR.findall(text)) != 1
    fields = _fields(head["rest"])
    task = head["task"]
    array = head["array"] if task is not None and _NUMBER.fullmatch(task) else None
    comment = _comment(fields.get("Comment", ""))
    restarts = fields.get("Restarts", "0")
    return JobDetail(
        id=f"{array}_{task}" if array else head["number"],
        number=int(head["number"]),
        state=JobState.UNKNOWN if forged else job_state(fields.get("JobState", "")),
        reason=fields.get("Reason", ""),
        key=None if forged else key_of(comment),
        comment=comment,
        uid=None if forged else int(head["uid"]),
        submitted=unix_time(fields.get("SubmitTime", "")),
        start=unix_time(fields.get("StartTime", "")),
        end=unix_time(fields.get("EndTime", "")),
        preempt=unix_time(fields.get("PreemptTime", "")),
        time_limit=time_limit(fields.get("TimeLimit", "")),
        restarts=int(restarts) if _NUMBER.fullmatch(restarts) else 0,
        requeue=fields.get("Requeue") == "1",
        batch_host=fields.get("BatchHost", ""),
        node_list=_named(fields.get("NodeList", "")),
        excluded=_named(fields.get("ExcNodeList", "")),
    )


def unix_time(text: str) -> float | None:
    """A time as Slurm prints it: unix seconds (SLURM_TIME_FORMAT=%s) or ISO 8601, local time."""
    text = text.strip()
    if _NUMBER.fullmatch(text):
        return float(text) if int(text) > 0 else None
    if not text[:1].isdigit():  # "N/A", "Unknown"; strptime takes 2 ms to load
        return None
    try:
        return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
    except (ValueError, OverflowError):
        return None


def time_limit(text: str) -> int | None:
    """Seconds of `[days-]hours:minutes:seconds`; None for UNLIMITED and what is no time."""
    found = re.fullmatch(r"(?:(\d{1,6})-)?(\d{1,6}):(\d{1,2}):(\d{1,2})", text.strip(), re.ASCII)
    if not found:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _queue_records(text: str, mark: str) -> list[list[str]]:
    """The fields of each record, the header's too. Raises Garbled."""
    pieces = text.split(mark)
    width = len(_QUEUE_FIELDS) + 1
    if len(pieces) % width != 1 or any(
        _BETWEEN.fullmatch(piece) is None for piece in pieces[::width]
    ):
        raise Garbled(_beginning(text))
    starts = range(1, len(pieces) - 1, width)
    return [pieces[start : start + width - 1] for start in starts]


def _queued(fields: list[str], uid: int) -> JobFacts | None:
    number, job_id, owner, state, submitted, start, end, priority = fields[:8]
    partition, nodes, reason, node_list, name, comment = fields[8:]
    if owner != str(uid) or not _NUMBER.fullmatch(number) or not _JOB_ID.fullmatch(job_id):
        return None  # the header, a part of a heterogeneous job, or a whole array
    return JobFacts(
        id=job_id,
        number=int(number),
        state=job_state(state),
        reason=reason.strip(),
        key=key_of(comment),
        name=name,
        partition=partition,
        nodes=int(nodes) if _NUMBER.fullmatch(nodes) else 0,
        node_list=node_list,
        submitted=unix_time(submitted),
        start=unix_time(start),
        end=unix_time(end),
        priority=int(priority) if _NUMBER.fullmatch(priority) else None,
    )


def _accounted(fields: list[str]) -> AccountFacts | None:
    job_id, raw, name, submitted, start, end, exit_code, state = fields
    if not _JOB_ID.fullmatch(job_id) or not _NUMBER.fullmatch(raw):
        return None
    return AccountFacts(
        id=job_id,
        number=int(raw),
        state=job_state(state),
        name=name,
        submitted=unix_time(submitted),
        start=unix_time(start),
        end=unix_time(end),
        exit_code=exit_code if re.fullmatch(r"\d{1,5}:\d{1,5}", exit_code, re.ASCII) else "",
    )


# scontrol prints `JobId=… [ArrayJobId=… ArrayTaskId=… …] JobName=<free text> UserId=…` and so on;
# the command, the folder, the comment and the output's path are free text at its end.
_ANCHOR = re.compile(r" UserId=\S+\(\d{1,10}\) GroupId=\S+ ", re.ASCII)
_HEAD = re.compile(
    r"JobId=(?P<number>\d{1,10}) "
    r"(?:ArrayJobId=(?P<array>\d{1,10}) )?(?:ArrayTaskId=(?P<task>\S+) )?.*?"
    r" UserId=\S+\((?P<uid>\d{1,10})\) (?P<rest>.*)",
    re.ASCII | re.DOTALL,
)
_FIELD = re.compile(r"(?:^|\s)([A-Z][A-Za-z/:]*)=(.*?)(?=\s+[A-Z][A-Za-z/:]*=|\s*$)", re.DOTALL)


def _fields(text: str) -> dict[str, str]:
    """`Name=value` pairs; the first of a name counts, for free text comes later."""
    found: dict[str, str] = {}
    for name, value in _FIELD.findall(text):
        found.setdefault(name, value.strip())
    return found


def _comment(text: str) -> str:
    return "" if text == "(null)" else text


def _named(nodes: str) -> str:
    return "" if nodes in ("(null)", "None") else nodes


def _beginning(text: str) -> str:
    return f"no such thing as asked for: {text[:80]!r}"
