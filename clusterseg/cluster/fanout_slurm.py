"""The jobs of a fan-out as Slurm jobs, an array where there are several, through submitit.

submitit submits; how the jobs fare is told by their results and, rarely, by one squeue for all:
submitit's own watcher asks sacct, which many sites don't have.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr
from functools import partial

from clusterseg.cluster.fanout_folder import Folder, Share
from clusterseg.cluster.fanout_jobs import Job, environment, load_submitit
from clusterseg.cluster.fanout_worker import run_tasks
from clusterseg.cluster.slurm.commands import (
    Slurm,
    SlurmError,
    SlurmMissing,
    SlurmRefused,
    SlurmUnreachable,
)
from clusterseg.cluster.slurm.environment import scrubbed
from clusterseg.cluster.slurm.jobs import (
    WAITING,
    JobFacts,
    JobState,
    carries,
    job_comment,
    job_name,
)
from clusterseg.errors import ClustersegError

# Jobs of one array: well below Slurm's default of MaxArraySize (1001), and few enough for what
# sites let one user queue. More tasks than that are shared out.
_MOST_JOBS = 200
GRACE = 15.0  # s; more where a file system is known to lag
_SOONEST, _RAREST = 2.0, 60.0  # s between two questions to Slurm

_ENDINGS = {
    JobState.OUT_OF_MEMORY: "out of memory",
    JobState.TIMEOUT: "time limit",
    JobState.CANCELLED: "cancelled in Slurm",
    JobState.NODE_FAIL: "node failed",
}


class SlurmJobs:
    """`options` are sbatch's, by long name (`cpus-per-task`); True is a flag without a value.

    `name` is that of the jobs, `setup` are lines of bash before the work. `grace`: seconds until
    a result that was written on another host is surely seen here.
    """

    def __init__(
        self,
        name: str,
        options: Mapping[str, str | bool],
        *,
        setup: Sequence[str] = (),
        grace: float = GRACE,
        environ: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.slots = _MOST_JOBS
        self.note = ""
        self._name = name
        self._options = {key: _one_line(key, value) for key, value in options.items()}
        # sbatch's variables beat the directives in a script.
        beaten = {f"SBATCH_{key.upper().replace('-', '_')}" for key in options}
        self._environ = {k: v for k, v in scrubbed(environ).items() if k not in beaten}
        self._slurm = Slurm(environ)
        self._setup = tuple(setup)
        self._key = os.urandom(16).hex()
        self._watch = Watch(grace, clock)

    def start(self, folder: Folder, shares: Sequence[Share]) -> list[Job]:
        submitit = load_submitit()
        errors = submitit.core.utils
        for program in ("sbatch", "srun"):
            if not self._slurm.has(program):
                raise SlurmMissing(
                    f"there is no {program} on the PATH",
                    code="no-slurm",
                    help="call it on a login node of the cluster, or with --executor local",
                )
        calls = [partial(run_tasks, str(folder.path), share) for share in shares]
        try:
            with environment(self._environ), redirect_stderr(io.StringIO()):
                executor = submitit.SlurmExecutor(folder.jobs)
                executor.update_parameters(
                    job_name=job_name(self._name, self._key),
                    time=None,  # ours, or the partition's: submitit's is five minutes
                    wckey=None,  # submitit's own, which a site that tracks keys refuses
                    # Slurm 22.05 to 23.02: srun would give the task one core of the job's.
                    use_srun=False,
                    array_parallelism=len(calls),
                    setup=list(self._setup) or None,
                    additional_parameters={
                        **self._options,
                        "comment": job_comment(self._key),
                        "requeue": True,
                    },
                )
                handles = executor.submit_array(calls)
        except (errors.FailedJobError, errors.FailedSubmissionError) as error:
            raise self._refusal(str(error).strip()) from None
        self._watch.begin()
        return [
            Job(handle.job_id, share, handle) for handle, share in zip(handles, shares, strict=True)
        ]

    def ended(self, jobs: Sequence[Job]) -> dict[str, str]:
        # submitit's pickle is the last thing that a job writes.
        ended = {job.id: "" for job in jobs if job.handle.paths.result_pickle.exists()}
        rest = [job.id for job in jobs if job.id not in ended]
        if rest and self._watch.is_due:
            try:
                self._watch.see(rest, self._mine())
                self.note = self._watch.note
            except SlurmError as error:  # silence says nothing about a job
                self._watch.see_nothing()
                self.note = error.message
        return ended | {one: self._watch.over[one] for one in rest if one in self._watch.over}

    def cancel(self, jobs: Sequence[Job]) -> None:
        """By the key, so that jobs whose submission was interrupted are found, too."""
        # The number before "_" stands for a whole array.
        ours = {fact.id.partition("_")[0] for fact in self._mine() if not fact.is_over}
        if ours:
            self._slurm.cancel(*sorted(ours))

    def _mine(self) -> list[JobFacts]:
        return [fact for fact in self._slurm.mine() if carries(fact, self._key)]

    def _refusal(self, said: str) -> ClustersegError:
        """After a failed sbatch: whatever it may have left is ended.

        One that is accepted still later finds no pickle of its number, and ends.
        """
        try:
            accepted = [fact for fact in self._mine() if not fact.is_over]
            self.cancel([])
        except SlurmError:
            return SlurmUnreachable("sbatch", said)
        return SlurmUnreachable("sbatch", said) if accepted else SlurmRefused("sbatch", said)


class Watch:
    """Decides from what squeue shows which jobs have ended without a word. Pure but its clock.

    A job has ended if squeue says so, or no longer shows it twice in a row (one empty answer is
    no proof); and is still so `grace` seconds later, in which its result may come to light, or
    Slurm queue it again.
    """

    def __init__(self, grace: float, clock: Callable[[], float]) -> None:
        self.over: dict[str, str] = {}
        self.note = ""
        self._grace = grace
        self._clock = clock
        self._missed: set[str] = set()
        self._since: dict[str, float] = {}
        self.begin()

    def begin(self) -> None:
        """New jobs were submitted."""
        self._began = self._clock()
        self._pause = _SOONEST
        self._next = self._began + self._pause

    @property
    def is_due(self) -> bool:
        return self._clock() >= self._next

    def see_nothing(self) -> None:
        """Slurm did not answer: asked again ever later."""
        self._pause = min(2 * self._pause, _RAREST)
        self._next = self._clock() + self._pause

    def see(self, ids: Sequence[str], facts: Sequence[JobFacts]) -> None:
        """Takes one answer about the jobs `ids`."""
        now = self._clock()
        by_id = {fact.id: fact for fact in facts}
        for one in ids:
            fact = by_id.get(one)
            if fact is not None and not fact.is_over:
                self._missed.discard(one)
                self._since.pop(one, None)
            elif fact is None and one not in self._missed and one not in self._since:
                self._missed.add(one)
            else:
                since = self._since.setdefault(one, now)
                if now - since >= self._grace:
                    self.over[one] = _ending(fact)
        self.note = _waiting([by_id[one] for one in ids if one in by_id])
        # The longer they have been at it, the less hurry; a suspicion is looked into soon.
        suspicious = bool(self._missed or self._since)
        patient = min(max(_SOONEST, (now - self._began) / 10), _RAREST)
        self._pause = min(patient, self._grace / 3) if suspicious else patient
        self._next = now + max(self._pause, 1.0)


def _ending(fact: JobFacts | None) -> str:
    return "" if fact is None else _ENDINGS.get(fact.state, "")


def _waiting(facts: Sequence[JobFacts]) -> str:
    waiting = [fact for fact in facts if fact.state in WAITING]
    if not waiting:
        return ""
    reason = f" ({waiting[0].reason})" if waiting[0].reason not in ("", "None") else ""
    return f"{len(waiting)} waiting in the queue{reason}"


def _one_line(key: str, value: str | bool) -> str | bool:
    if isinstance(value, str) and not value.isprintable():
        raise ClustersegError(
            f"the sbatch option --{key} has a value of several lines: {value!a}",
            code="slurm-option",
        )
    return value
