"""The lives of Slurm's jobs and of their supervisors, by one question about all of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping

from clusterseg.cluster.local import LocalLives
from clusterseg.cluster.slurm.accounting import Accounting
from clusterseg.cluster.slurm.configuration import present_cluster
from clusterseg.cluster.slurm.jobs import KEY_IN_NAME, JobFacts, carries, key_begins
from clusterseg.cluster.slurm.queue import FRESH, Answer, QueueCache
from clusterseg.cluster.slurm.sights import SETTLE, Known, elsewhere, holder_sight, job_sight
from clusterseg.cluster.slurm.silence import Silences, last_beat
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Claim
from clusterseg.runs.snapshot import JobKey, Sight
from clusterseg.runs.state import Life
from clusterseg.runs.store import read_intent


class SlurmLives:
    """The `Lives` of runs.snapshot for jobs of Slurm; asks when it is told what to expect."""

    def __init__(
        self,
        environ: Mapping[str, str] = os.environ,
        *,
        max_age: float = FRESH,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`max_age`: seconds that an answer of Slurm may be old."""
        self._queue = QueueCache(environ, clock=clock)
        self._accounting = Accounting(environ, clock=clock)
        self._silences = Silences(environ, clock=clock)
        self._local = LocalLives()
        self._max_age = max_age
        self._clock = clock
        self._cluster = present_cluster(environ)
        self._known = Known(Answer(), {}, clock(), uid=os.getuid(), cluster=self._cluster)

    def expect(self, jobs: Iterable[JobKey]) -> None:
        """Asks squeue once, and sacct once for what squeue does not know."""
        wanted = [job for job in jobs if not job.is_local and self._is_asked_for(job)]
        if not wanted:
            return
        answer = self._queue.answer(max_age=self._max_age)
        absent = [job for job in wanted if job.id not in answer.jobs]
        newest = max((job.since for job in absent), default=0.0)
        if newest + SETTLE > answer.asked and answer.failures == 0:
            # Submitted just before, or after, the answer: "not there" says nothing yet.
            newer_than = min(newest + SETTLE, self._clock())
            answer = self._queue.answer(max_age=self._max_age, newer_than=newer_than)
        forgotten: dict[str, float] = {}
        for job in wanted:
            if job.id is not None and job.id not in answer.jobs and job.id not in answer.ended:
                forgotten[job.id] = max(job.since, forgotten.get(job.id, 0.0))
        accounts = self._accounting.look_up(forgotten)
        by_key = _by_key(answer.jobs.values(), {job.key for job in wanted if job.key is not None})
        self._known = Known(
            answer, accounts, self._clock(), by_key, uid=os.getuid(), cluster=self._cluster
        )

    def job(self, run: RunPaths, job: JobKey) -> Sight:
        return job_sight(job, self._known, adopted=is_adopted(run, job.id))

    def holder(self, run: RunPaths, claim: Claim) -> Sight:
        here = self._local.holder(claim)
        if here is not Life.UNKNOWN:
            return Sight(here)
        known = self._known
        facts = self._facts(run, claim, known)
        beat = last_beat(run, claim)
        paths = run.attempt(claim.attempt)
        ended = paths.end.exists() or paths.packed.exists()
        sight = holder_sight(claim, facts, beat, known, ended=ended)
        if facts is None:
            intent = read_intent(run.submission(claim.submission))
            if away := elsewhere(claim.uid, intent.cluster if intent else None, known):
                return Sight(Life.UNKNOWN, note=away)
        if facts is not None or not known.answers:
            return sight
        silent, is_dead = self._silences.look(run, claim)
        note = f"{sight.note}; its last heartbeat is {silent / 60:.0f} min old"
        return Sight(Life.DEAD if is_dead else Life.UNKNOWN, note=note)

    def facts(self, run: RunPaths, job: JobKey) -> JobFacts | None:
        """What Slurm says of a submission's job; None if it says nothing."""
        if job.id is None:
            return None
        return self._known.find(job.id, job.key, adopted=is_adopted(run, job.id))

    def _is_asked_for(self, job: JobKey) -> bool:
        return elsewhere(job.uid, job.cluster, self._known) is None

    @staticmethod
    def _facts(run: RunPaths, claim: Claim, known: Known) -> JobFacts | None:
        adopted = is_adopted(run, claim.job_id)
        facts = known.find(claim.job_id, claim.key, adopted=adopted)
        if facts is None and claim.job_id in known.answer.jobs:
            intent = read_intent(run.submission(claim.submission))
            facts = known.find(claim.job_id, intent.key if intent else None, adopted=adopted)
        return facts


def _by_key(jobs: Iterable[JobFacts], keys: Iterable[str]) -> dict[str, list[JobFacts]]:
    """The jobs that carry each key. Their number and that of the keys may be thousands."""
    by_beginning: dict[str | None, list[JobFacts]] = {}
    for facts in jobs:
        by_beginning.setdefault(key_begins(facts), []).append(facts)
    return {
        key: [one for one in by_beginning.get(key[:KEY_IN_NAME], ()) if carries(one, key)]
        for key in keys
    }


def is_adopted(run: RunPaths, job_id: str | None) -> bool:
    """Whether a run was made by its own job, which a person gave to sbatch."""
    return job_id is not None and f"-j{job_id}-" in run.run_id
