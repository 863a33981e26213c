"""Why a job waits, since when it should not any more, and what would start sooner.

Asked for one job at a time, and seldom: one squeue for its place, and where less could start
sooner some `sbatch --test-only`, which cost the controller more than any other question. Jobs share
the answers, and one limit of questions a minute. Nothing is asked of a controller that is slow or
silent.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from clusterseg.cluster.slurm.cache import CacheFile
from clusterseg.cluster.slurm.commands import Slurm
from clusterseg.cluster.slurm.jobs import WAITING, JobFacts
from clusterseg.cluster.slurm.pending import Row, ask_queue
from clusterseg.cluster.slurm.reasons import explain
from clusterseg.cluster.slurm.trials import MOST_QUESTIONS, Request, Sooner, Trials, try_changes

FRESH = 60.0  # seconds that an answer is good for
AGAIN = 10.0  # seconds after which the queue may be asked again for a job that it shows otherwise
FRESH_SOONER = 600.0  # seconds that the tests of what would start sooner are good for
SLOW = 1.0  # seconds: of a controller that took so long for squeue nothing more is asked
MOST_A_MINUTE = 12  # questions for all jobs of this user: 5 of the queue, and one job's tests
_MINUTE = 60.0
_GAIN = 60.0  # seconds that a start must be earlier to count
# Options by which jobs are told apart, but not treated otherwise.
_NAMES = ("--job-name=", "--comment=", "--output=", "--error=", "--chdir=", "--array=")


# Reasons of jobs that wait for nodes, and of those that do not start as they are.
_FOR_NODES = frozenset({"Resources", "Priority", "None", "WaitingForScheduling"})
_NEVER = frozenset(
    {
        *("JobHeldUser", "JobHeldAdmin", "JobHoldMaxRequeue", "RequeuedHeld"),
        *("PartitionTimeLimit", "PartitionNodeLimit", "DependencyNeverSatisfied"),
    }
)


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


class _Queue(Struct, frozen=True):
    asked: float
    rows: list[Row]


class _Cache(Struct, frozen=True):
    """What was asked for any job of this user. `questions`: when, those of the last minute."""

    queues: dict[str, _Queue] = {}  # by partition
    trials: dict[str, Trials] = {}  # by options and partition
    questions: list[float] = []


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
    known = _without_old(cache.load(_Cache) or _Cache(), clock())
    queue = known.queues.get(job.partition)
    if queue is None or _is_behind(queue, job, clock()):
        if not healthy or not _may_ask(known, 1):
            return describe(job, None, ())
        began = clock()
        rows = ask_queue(slurm, job.partition)
        known = replace(known, questions=[*known.questions, began])
        if rows is None:
            cache.save(known)
            return describe(job, None, ())
        healthy = clock() - began < SLOW
        queue = _Queue(began, rows)
        known = replace(known, queues={**known.queues, job.partition: queue})
    found = describe(job, _own(queue.rows, job), queue.rows)
    if request is not None and explain(found.reason).movable:
        what = _what_is_tried(request, job)
        trials = known.trials.get(what)
        if trials is None and healthy and _may_ask(known, MOST_QUESTIONS):
            trials = try_changes(slurm, job.partition, request, clock)
            asked = [trials.tested] * MOST_QUESTIONS
            known = replace(
                known,
                trials={**known.trials, what: trials},
                questions=[*known.questions, *asked],
            )
        if trials is not None:
            found = replace(found, sooner=_sooner(trials, found, clock()))
    cache.save(known)
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


def _sooner(trials: Trials, found: Waiting, now: float) -> tuple[Sooner, ...]:
    """Of what would be taken, that which starts before this job does."""
    limit = found.expected_start or trials.whole
    if limit is None:  # it would not be taken as it is: whatever is taken is sooner
        return trials.starts
    return tuple(one for one in trials.starts if max(one.start, now) < limit - _GAIN)


def _is_behind(queue: _Queue, job: JobFacts, now: float) -> bool:
    """Whether what is known of the queue is of a time before that of what is known of the job."""
    own = _own(queue.rows, job)
    if own is not None and explain(own.reason).code == explain(job.reason).code:
        return False
    return now - queue.asked >= AGAIN


def _may_ask(known: _Cache, questions: int) -> bool:
    return len(known.questions) + questions <= MOST_A_MINUTE


def _without_old(known: _Cache, now: float) -> _Cache:
    return _Cache(
        {name: one for name, one in known.queues.items() if 0 <= now - one.asked < FRESH},
        {what: one for what, one in known.trials.items() if 0 <= now - one.tested < FRESH_SOONER},
        [then for then in known.questions if 0 <= now - then < _MINUTE],
    )


def _what_is_tried(request: Request, job: JobFacts) -> str:
    """The same for all tasks of an array, and for whatever else Slurm would treat alike."""
    options = [word for word in request.options if not word.startswith(_NAMES)]
    said = "\0".join([job.partition, *options])
    return hashlib.sha256(said.encode(errors="surrogateescape")).hexdigest()[:16]
