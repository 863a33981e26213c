"""Why a job waits, since when it should not any more, and what would start sooner.

Asked for one job at a time, and seldom: one squeue for its place, and where less could start
sooner some `sbatch --test-only`, which cost the controller more than any other question. Nothing
is asked of a controller that is slow or silent.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from clusterseg.cluster.slurm.alternatives import Limits, changes, read_start, seconds_of
from clusterseg.cluster.slurm.answers import unix_time
from clusterseg.cluster.slurm.cache import CacheFile
from clusterseg.cluster.slurm.commands import Slurm, SlurmError, random_mark
from clusterseg.cluster.slurm.jobs import WAITING, JobFacts
from clusterseg.cluster.slurm.reasons import explain

FRESH = 60.0  # seconds that an answer is good for
FRESH_SOONER = 600.0  # seconds that the tests of what would start sooner are good for
SLOW = 1.0  # seconds: of a controller that took so long for squeue nothing more is asked
PATIENCE = 4.0  # seconds for one question
BUDGET = 6.0  # seconds for all tests of one job
_GAIN = 60.0  # seconds that a start must be earlier to count
_REMEMBERED = 200  # jobs


# Reasons of jobs that wait for nodes, and of those that do not start as they are.
_FOR_NODES = frozenset({"Resources", "Priority", "None", "WaitingForScheduling"})
_NEVER = frozenset(
    {
        *("JobHeldUser", "JobHeldAdmin", "JobHoldMaxRequeue", "RequeuedHeld"),
        *("PartitionTimeLimit", "PartitionNodeLimit", "DependencyNeverSatisfied"),
    }
)


class Sooner(Struct, frozen=True):
    """`change` completes "with …"; `start` in unix seconds, as Slurm expects it."""

    change: str
    start: float


class Waiting(Struct, frozen=True, kw_only=True):
    """Why a job waits (`status --json`, key `waiting`).

    `reason` is Slurm's code, `text` says it in words, `help` what to do about it. `position` of
    `of` jobs: its place by priority among those that wait in its partition and may start.
    """

    reason: str
    text: str
    help: str | None = None
    expected_start: float | None = None
    position: int | None = None
    of: int | None = None
    sooner: tuple[Sooner, ...] = ()


class Request(Struct, frozen=True):
    """What was submitted: sbatch's options, one word each, and the script.

    `partitions` are those that could be tried, as a site's profile has them; none: all of sinfo.
    """

    options: tuple[str, ...]
    script: Path
    partitions: tuple[str, ...] = ()


class Row(Struct, frozen=True, kw_only=True):
    """A pending job in squeue; an array's tasks that wait are one row. `start` as Slurm expects."""

    id: str
    priority: int
    reason: str = ""
    start: float | None = None
    dependency: str = ""


class _Known(Struct, frozen=True):
    asked: float
    tested: float
    waiting: Waiting


class _Cache(Struct, frozen=True):
    jobs: dict[str, _Known] = {}


def why_waiting(
    job: JobFacts,
    request: Request | None,
    *,
    slurm: Slurm,
    cache: CacheFile,
    healthy: bool = True,
    clock: Callable[[], float] = time.time,
) -> Waiting | None:
    """Why `job` waits; None if it does not. Never raises.

    `healthy`: the controller answered the last question, and quickly.
    """
    if job.state not in WAITING:
        return None
    now = clock()
    every = (cache.load(_Cache) or _Cache()).jobs
    known = every.get(_cache_key(job))
    if known is not None and 0 <= now - known.asked < FRESH and _same(known.waiting, job):
        return known.waiting
    found = describe(job, None, ())
    if not healthy:
        return found
    rows = _ask_queue(slurm, job)
    if rows is None:
        return found
    found = describe(job, _own(rows, job), rows)
    tested = now
    if known is not None and 0 <= now - known.tested < FRESH_SOONER:
        tested = known.tested
        found = replace(found, sooner=_still_sooner(known.waiting.sooner, found, now))
    elif clock() - now < SLOW and request is not None and explain(job.reason).movable:
        found = replace(found, sooner=_test(slurm, job, request, found, clock))
    kept = sorted(every.items(), key=lambda item: item[1].asked)[-_REMEMBERED:]
    cache.save(_Cache({**dict(kept), _cache_key(job): _Known(now, tested, found)}))
    return found


def describe(job: JobFacts, own: Row | None, rows: Sequence[Row]) -> Waiting:
    """What is known of a waiting job, from its own row and those of its partition. Pure."""
    reason = explain(own.reason if own is not None and own.reason else job.reason)
    text = reason.text
    if reason.code == "Dependency" and own is not None and own.dependency:
        text = f"{text}: {own.dependency}"
    elif reason.detail and reason.code:
        text = f"{text} ({reason.detail})"
    position, of = place(rows, own) if own is not None else (None, None)
    start = own.start if own is not None else job.start
    return Waiting(
        reason=reason.code or job.reason,
        text=text,
        help=reason.help or None,
        expected_start=None if _is_stuck(own, reason.code) else start,
        position=position,
        of=of,
    )


def place(rows: Sequence[Row], own: Row) -> tuple[int | None, int | None]:
    """The place of `own` by priority, from 1, and among how many; None, None if it may not start.

    Who is held, or waits for something else than nodes (a time, another job, a limit that it is
    beyond), is before nobody.
    """
    running = [row for row in rows if _competes(row)]
    if own not in running:
        return None, None
    return sorted(running, key=lambda row: (-row.priority, _number(row))).index(own) + 1, len(
        running
    )


def read_rows(said: str, mark: str) -> list[Row]:
    """The rows in what squeue printed with `rows_format(mark)`; what is none is passed over."""
    rows = []
    for line in said.split(mark + "\n"):
        fields = line.split(mark)
        if len(fields) != _FIELDS.count("%") or not fields[1].isdigit():
            continue
        job_id, priority, start, reason, dependency = fields
        rows.append(
            Row(
                id=job_id.strip(),
                priority=int(priority),
                reason=reason.strip(),
                start=unix_time(start),
                dependency="" if dependency == "(null)" else dependency[:200],
            )
        )
    return rows


_FIELDS = "%F %Q %S %r %E"


def rows_format(mark: str) -> str:
    """squeue's --format for `read_rows`."""
    return mark.join(_FIELDS.split(" ")) + mark


def _ask_queue(slurm: Slurm, job: JobFacts) -> list[Row] | None:
    mark = random_mark()
    partition = ["-p", job.partition] if job.partition else []
    try:
        said = slurm.run(
            *("squeue", "--all", "-h", "-t", "PENDING", *partition, "-o", rows_format(mark)),
            patience=PATIENCE,
        )
    except SlurmError:
        return None
    return read_rows(said, mark)


def _test(
    slurm: Slurm, job: JobFacts, request: Request, found: Waiting, clock: Callable[[], float]
) -> tuple[Sooner, ...]:
    """What Slurm would start before it starts this job; nothing where it can't tell."""
    until = clock() + BUDGET
    sooner: list[Sooner] = []
    try:
        limit = found.expected_start or _start(slurm, request, ())
        if limit is None:  # Slurm would not take it as it is: whatever it takes is sooner
            limit = math.inf
        there = _partitions(slurm)
        names = there if not request.partitions else [p for p in request.partitions if p in there]
        limits = there.get(job.partition, Limits())
        own = job.partition.split(",")
        for change in changes(request.options, names, limits, own=own):
            if clock() >= until:
                break
            start = _start(slurm, request, change.options)
            if start is not None and start < limit - _GAIN:
                sooner.append(Sooner(change.text, start))
    except SlurmError:
        return tuple(sooner)
    return tuple(sooner)


def _start(slurm: Slurm, request: Request, further: Sequence[str]) -> float | None:
    """When a job like this would start; None if Slurm would not take it."""
    said = slurm.test_only([*request.options, *further], request.script, patience=PATIENCE)
    return None if said is None else read_start(said)


def _partitions(slurm: Slurm) -> dict[str, Limits]:
    """Those that are up, with what they allow."""
    said = slurm.run("sinfo", "-h", "-o", "%a %l %s %R", patience=PATIENCE)
    found: dict[str, Limits] = {}
    for words in map(str.split, said.splitlines()):
        if len(words) == 4 and words[0] == "up":
            _, time_said, nodes, name = words
            seconds, most = seconds_of(time_said), nodes.rpartition("-")[2]
            found[name] = Limits(
                nodes=int(most) if most.isdecimal() else None,
                minutes=None if seconds is None else seconds // 60,
            )
    return found


def _own(rows: Sequence[Row], job: JobFacts) -> Row | None:
    ids = (str(job.number), job.id.partition("_")[0])  # tasks that wait stand under their array's
    return next((row for row in rows if row.id in ids), None)


def _competes(row: Row) -> bool:
    return row.priority > 0 and explain(row.reason).code in _FOR_NODES


def _is_stuck(own: Row | None, code: str) -> bool:
    """Whether it will not start as it is: what Slurm once expected of it is void."""
    return code in _NEVER or (own is not None and own.priority == 0)


def _number(row: Row) -> int:
    return int(row.id) if row.id.isdigit() else 0


def _same(known: Waiting, job: JobFacts) -> bool:
    """Whether what is known is still of the reason that the queue gives now."""
    return known.reason == (explain(job.reason).code or job.reason)


def _still_sooner(sooner: Sequence[Sooner], found: Waiting, now: float) -> tuple[Sooner, ...]:
    limit = found.expected_start
    if limit is None:
        return tuple(sooner)
    return tuple(one for one in sooner if max(one.start, now) < limit - _GAIN)


def _cache_key(job: JobFacts) -> str:
    return f"{job.id}:{job.submitted}:{job.key}"
