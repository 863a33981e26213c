"""Why a run's job waits, for `status`."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from clusterseg.cli.output import clock, duration
from clusterseg.errors import ClustersegError
from clusterseg.runs.files import read_capped
from clusterseg.runs.records import State
from clusterseg.runs.snapshot import Snapshot

if TYPE_CHECKING:
    from clusterseg.cluster.slurm.jobs import JobFacts
    from clusterseg.cluster.slurm.trials import Request
    from clusterseg.cluster.slurm.waiting import Waiting

_LARGEST_PLAN = 16 << 20  # bytes


def why_it_waits(
    snapshot: Snapshot, job: JobFacts | None, environ: Mapping[str, str] = os.environ
) -> Waiting | None:
    """Why the run's job waits in Slurm; None if it does not, or Slurm says nothing of it.

    `job` is what Slurm said of it (`cluster.look.Eyes.job`).
    """
    # A job that Slurm queued again may have a supervisor that still runs on a node that was lost.
    if job is None or snapshot.verdict.state is not State.QUEUED:
        return None
    from clusterseg.cluster.slurm.cache import CacheFile, cache_folder, cluster_mark
    from clusterseg.cluster.slurm.commands import Slurm
    from clusterseg.cluster.slurm.queue import QueueCache
    from clusterseg.cluster.slurm.waiting import FRESH, SLOW, why_waiting

    folder = cache_folder(environ)
    queue = QueueCache(environ).answer(max_age=FRESH)
    return why_waiting(
        job,
        _request(snapshot, environ),
        slurm=Slurm(environ),
        cache=CacheFile(folder / f"{cluster_mark(environ)}-waiting.json" if folder else None),
        healthy=queue.failures == 0 and queue.took < SLOW,
    )


def waiting_facts(waiting: Waiting) -> list[tuple[str, str]]:
    """Name and text of each line of the page."""
    now = time.time()
    facts = [("waiting", waiting.text)]
    if waiting.help:
        facts.append(("", waiting.help))
    if waiting.position is not None:
        facts.append(("place", f"{waiting.position} of {waiting.of} that wait in its partition"))
    if waiting.expected_start is not None:
        facts.append(("expected", _when(waiting.expected_start, now)))
    for number, one in enumerate(waiting.sooner):
        name = "sooner" if number == 0 else ""
        facts.append((name, f"with {one.change}: {_when(one.start, now)}"))
    return facts


def _when(t: float, now: float) -> str:
    return f"{clock(t)} (in {duration(t - now)})" if t > now else "now"


def _request(snapshot: Snapshot, environ: Mapping[str, str]) -> Request | None:
    """What was submitted; None where there is no readable plan for Slurm."""
    from clusterseg.cluster.slurm.trials import Request

    submission = snapshot.submission
    if submission is None:
        return None
    try:
        plan = msgspec.json.decode(read_capped(submission.plan, _LARGEST_PLAN), type=_PlanPart)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if plan.slurm is None:
        return None
    partitions = _partitions(plan.slurm.site, environ)
    return Request(plan.slurm.options, submission.batch_script, partitions)


def _partitions(site: str | None, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Those that the site's profile knows: of all that there are, the ones meant for people."""
    from clusterseg.submit.definitions import find_site

    if site is None:
        return ()
    try:
        return tuple(find_site(site, environ).partitions)
    except ClustersegError:  # removed or changed since: no reason to say nothing
        return ()


class _SlurmPart(msgspec.Struct):
    options: tuple[str, ...]
    site: str | None = None


class _PlanPart(msgspec.Struct):
    """What is needed of plan.json (`clusterseg.plan.model.Plan`)."""

    slurm: _SlurmPart | None = None
