"""The jobs of a run in Slurm's queue, and their cancellation. Never a stranger's job.

A job is the run's if it carries the key of one of its submissions; an id alone may have been
given to somebody else's. Of an array that several runs share, only the run's own task is meant.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from clusterseg.cluster.slurm.commands import Slurm, SlurmUnreachable
from clusterseg.cluster.slurm.jobs import WAITING, JobFacts, carries, job_comment
from clusterseg.cluster.slurm.lives import is_adopted
from clusterseg.cluster.slurm.queue import QueueCache
from clusterseg.errors import ClustersegError
from clusterseg.runs.paths import RunPaths, SubmissionPaths
from clusterseg.runs.records import Intent
from clusterseg.runs.store import iter_submissions, read_intent, read_job_id
from clusterseg.submit.other_cluster import refuse_other_cluster


def jobs_of(run: RunPaths, jobs: Iterable[JobFacts], *, but: str | None = None) -> list[JobFacts]:
    """Those of the user's jobs that belong to a run and are not over.

    `but`: the key of a submission that is left out. An array of which no task was told apart
    yet (it waits whole) is listed as the run's task.
    """
    submissions = [
        (submission, intent)
        for submission in iter_submissions(run)
        if (intent := read_intent(submission)) is not None and intent.key != but
    ]
    return [
        job
        for job in jobs
        if not job.is_over and any(_is_of(job, run, *one) for one in submissions)
    ]


def cancel_waiting(run: RunPaths, environ: Mapping[str, str] = os.environ) -> list[str]:
    """Cancels the run's jobs that have not started; returns their ids.

    One that starts meanwhile is left to its supervisor. Raises SlurmError, and ClustersegError if
    its last job is in another cluster.
    """
    _refuse_other_cluster(run, environ)
    slurm = Slurm(environ)
    waiting = [job for job in jobs_of(run, slurm.mine()) if job.state in WAITING]
    return _cancelled(slurm, waiting, environ, pending_only=True)


def cancel_all(run: RunPaths, environ: Mapping[str, str] = os.environ) -> list[str]:
    """Cancels the run's jobs, whatever they do; returns their ids.

    Raises SlurmError, and ClustersegError if its last job is in another cluster.
    """
    _refuse_other_cluster(run, environ)
    slurm = Slurm(environ)
    return _cancelled(slurm, jobs_of(run, slurm.mine()), environ)


def cancel_leftovers(run: RunPaths, key: str, environ: Mapping[str, str] = os.environ) -> list[str]:
    """Cancels held jobs of the run's other submissions than that of `key`. Raises SlurmError."""
    slurm = Slurm(environ)
    left = [job for job in jobs_of(run, slurm.mine(), but=key) if job.is_held]
    return _cancelled(slurm, left, environ, pending_only=True)


def _refuse_other_cluster(run: RunPaths, environ: Mapping[str, str]) -> None:
    last = [read_intent(submission) for submission in iter_submissions(run)[-1:]]
    for intent in filter(None, last):
        refuse_other_cluster(run.run_id, intent.cluster, environ)


def _cancelled(
    slurm: Slurm, jobs: list[JobFacts], environ: Mapping[str, str], *, pending_only: bool = False
) -> list[str]:
    job_ids = [job.id for job in jobs]
    tasks = [job for job in jobs if pending_only and "_" in job.id]
    for job in tasks:
        # Tasks that wait are one record, and `scancel --state` (22.05) takes all of it for
        # one task. To change a task, if only to what it is, parts it from the others.
        if job.key is not None:
            slurm.update(job.id, f"Comment={job_comment(job.key)}")
        else:  # the site has its own comments there
            slurm.cancel(job.id)
    rest = [job.id for job in jobs if job not in tasks or job.key is not None]
    if rest:
        slurm.cancel(*rest, pending_only=pending_only)
    if job_ids:
        QueueCache(environ).outdate()
    return job_ids


def is_queued_for_good(
    run: RunPaths, submission: SubmissionPaths, environ: Mapping[str, str]
) -> bool | None:
    """Whether a submission's job is in the queue and released; None if Slurm does not answer."""
    intent = read_intent(submission)
    if intent is None:
        return None
    try:
        jobs = Slurm(environ).mine()
    except ClustersegError as error:
        if isinstance(error, SlurmUnreachable):
            return None
        raise
    ours = [job for job in jobs if not job.is_over and _is_of(job, run, submission, intent)]
    return any(not job.is_held for job in ours)


def _is_of(job: JobFacts, run: RunPaths, submission: SubmissionPaths, intent: Intent) -> bool:
    if not carries(job, intent.key):
        recorded = read_job_id(submission)
        return job.key is None and job.id == recorded and is_adopted(run, recorded)
    if intent.leader is None or intent.task is None:
        return True
    return job.id.partition("_")[2] == str(intent.task)
