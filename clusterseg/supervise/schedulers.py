"""Which scheduler a run's plan has, and what its file system asks of the lease."""

from __future__ import annotations

from collections.abc import Mapping

from clusterseg.cluster.slurm.commands import Slurm
from clusterseg.cluster.slurm.lives import is_adopted
from clusterseg.plan.model import Plan
from clusterseg.runs.claims import Patience
from clusterseg.supervise.journal import Journal
from clusterseg.supervise.limits import Timing
from clusterseg.supervise.opening import Opening
from clusterseg.supervise.scheduler import NoScheduler, Scheduler
from clusterseg.supervise.slurm_scheduler import SlurmScheduler

ANSWER = 5.0  # seconds for Slurm to answer while ranks run: a part of the shortest grace times
_SLACK = 15.0  # seconds beside stale metadata: the interval between two beats, a slow fsync
# So many beats in a grace, at least: with the shortest one an answer of Slurm that does not come
# fits into the half of it in which a beat must come.
_BEATS = 15


def scheduler_of(opening: Opening, environ: Mapping[str, str], journal: Journal) -> Scheduler:
    """The scheduler around this process."""
    plan = opening.plan
    if opening.job is None or plan.slurm is None:
        return NoScheduler(plan.time_limit)
    slurm = Slurm(environ, patience=ANSWER)
    return SlurmScheduler(
        opening.job,
        plan.slurm,
        slurm,
        journal,
        key=opening.key,
        time_limit=plan.time_limit,
        adopted_as=plan.name if is_adopted(opening.run, opening.job_id) else None,
    )


def timing_of(plan: Plan) -> Timing:
    """The supervisor's clock; on a cluster the grace of the lease is that of its file system."""
    if plan.slurm is None:
        return Timing()
    return Timing(patience=patience_of(plan.slurm.metadata_delay))


def patience_of(metadata_delay: float) -> Patience:
    """Of a lease on a file system that shows old metadata for so many seconds."""
    grace = metadata_delay + _SLACK
    return Patience(interval=min(Patience.interval, grace / _BEATS), grace=grace)
