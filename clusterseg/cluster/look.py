"""The state of runs, with everybody asked who can know whether they live."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from clusterseg.cluster.local import LocalLives
from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Claim
from clusterseg.runs.snapshot import JobKey, Sight, Snapshot, is_local_id, take, take_all
from clusterseg.runs.state import Life

if TYPE_CHECKING:
    from clusterseg.cluster.slurm.jobs import JobFacts
    from clusterseg.cluster.slurm.lives import SlurmLives

NOW_AND_THEN = 20.0  # seconds between two questions to Slurm of who watches a run for long
_JUST_NOW = 5.0


def look(run: RunPaths) -> Snapshot:
    """The state of a run, as it can be told from this host.

    Raises ClustersegError if the run directory can't be read.
    """
    return Eyes().look(run)


def look_at(runs: Sequence[RunPaths]) -> list[Snapshot | ClustersegError]:
    """The state of each run by one question to Slurm; an error for one that can't be read."""
    return Eyes().look_at(runs)


class Eyes:
    """Looks at runs, now or again and again."""

    def __init__(
        self, environ: Mapping[str, str] = os.environ, *, max_age: float = _JUST_NOW
    ) -> None:
        """`max_age`: seconds that what Slurm has said may be old (`NOW_AND_THEN` for a watch)."""
        self._lives = ClusterLives(environ, max_age)

    def look(self, run: RunPaths) -> Snapshot:
        """As the function `look`."""
        try:
            return take(run, self._lives)
        except OSError as error:
            raise _unreadable(run, error) from None

    def look_at(self, runs: Sequence[RunPaths]) -> list[Snapshot | ClustersegError]:
        """As the function `look_at`."""
        found = take_all(runs, self._lives)
        return [
            _unreadable(run, each) if isinstance(each, OSError) else each
            for run, each in zip(runs, found, strict=True)
        ]

    def job(self, snapshot: Snapshot) -> JobFacts | None:
        """What Slurm said of a run's job when it was looked at; None if it has said nothing."""
        if snapshot.job is None or snapshot.job.is_local:
            return None
        return self._lives.slurm.facts(snapshot.run, snapshot.job)


class ClusterLives:
    """The `Lives` of runs.snapshot for jobs with and without a scheduler."""

    def __init__(self, environ: Mapping[str, str], max_age: float) -> None:
        self._environ, self._max_age = environ, max_age
        self._local = LocalLives()

    @cached_property
    def slurm(self) -> SlurmLives:
        """Loaded, and Slurm asked, only where there is a job of Slurm."""
        from clusterseg.cluster.slurm.lives import SlurmLives  # noqa: PLC0415

        return SlurmLives(self._environ, max_age=self._max_age)

    def expect(self, jobs: Iterable[JobKey]) -> None:
        wanted = [job for job in jobs if not job.is_local]
        if wanted:
            self.slurm.expect(wanted)

    def job(self, run: RunPaths, job: JobKey) -> Sight:
        if not job.is_local:
            return self.slurm.job(run, job)
        return Sight(self._local.job(job.id) if job.id else Life.DEAD)

    def holder(self, run: RunPaths, claim: Claim) -> Sight:
        if is_local_id(claim.job_id):
            return Sight(self._local.holder(claim))
        return self.slurm.holder(run, claim)


def _unreadable(run: RunPaths, error: OSError) -> ClustersegError:
    return ClustersegError(
        f"{error.filename or run.root} can't be read: {error.strerror or error}",
        code="run-dir",
        exit_code=ExitCode.FAILED,
    )
