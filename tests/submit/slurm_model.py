"""A model of Slurm that does what a real one was seen to do: it loses, delays and lies.

Every choice of a fault comes from `draw`, so that a test can replay and shrink what happened.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clusterseg.cluster.slurm.commands import SlurmRefused, SlurmUnreachable
from clusterseg.cluster.slurm.jobs import JobDetail, JobFacts, JobState, key_of

NONE, UNREACHABLE, REFUSED = "none", "unreachable", "refused"


class ClientKilled(BaseException):
    """The client was killed; nothing of it goes on."""


@dataclass
class ModelJob:
    number: int
    key: str | None
    name: str
    state: JobState = JobState.PENDING
    held: bool = True
    saved: bool = False  # a crash of the controller does not lose it

    @property
    def facts(self) -> JobFacts:
        return JobFacts(
            id=str(self.number),
            number=self.number,
            state=self.state,
            reason="JobHeldUser" if self.held and self.state is JobState.PENDING else "None",
            key=self.key,
            name=self.name,
            node_list="" if self.state in (JobState.PENDING, JobState.CANCELLED) else "n1",
        )


@dataclass
class SlurmModel:
    """`draw(kinds)` chooses one of the faults that may happen now; the first means none."""

    draw: Callable[[Sequence[str]], str]
    now: float = 0.0
    next_id: int = 1
    jobs: dict[int, ModelJob] = field(default_factory=dict)
    late: list[tuple[float, ModelJob]] = field(default_factory=list)  # accepted when its time comes
    starts: list[str | None] = field(default_factory=list)  # keys of jobs, as they start
    twice: bool = False  # two jobs of one key were released at one time
    stranger_released: bool = False

    # What the client calls.

    def submit(self, options: Sequence[str], script: Path, *, directory: Path) -> str:
        said = {o.partition("=")[0]: o.partition("=")[2] for o in options}
        assert "--hold" in said
        fault = self._fault(
            "refused", "unreachable", "accepted, no answer", "accepted late", "accepted, failed",
            "another id", "acknowledged, then lost", "killed before", "killed after",
        )  # fmt: skip
        if fault == "killed before":
            raise ClientKilled
        if fault == "refused":
            raise SlurmRefused("sbatch", "Invalid partition name specified")
        if fault == "unreachable":
            raise SlurmUnreachable("sbatch", "connect failure")
        job = ModelJob(0, key_of(said["--comment"]), said["--job-name"])
        if fault == "accepted late":
            self.late.append((self.now + self._delay(), job))
            raise SlurmUnreachable("sbatch", "silent")
        self._accept(job)
        if fault == "killed after":
            raise ClientKilled
        if fault == "accepted, no answer":
            raise SlurmUnreachable("sbatch", "Socket timed out")
        if fault == "accepted, failed":  # a wrapper that submits and then fails
            raise SlurmRefused("sbatch", "wrapper: cannot write log")
        if fault == "acknowledged, then lost":
            self.crash()
        return str(job.number + (17 if fault == "another id" else 0))

    def mine(self) -> list[JobFacts]:
        fault = self._fault("unreachable", "empty", "killed before")
        if fault == "killed before":
            raise ClientKilled
        if fault == "unreachable":
            raise SlurmUnreachable("squeue", "Socket timed out")
        return [] if fault == "empty" else [job.facts for job in self.jobs.values()]

    def show(self, job_id: str) -> JobDetail | None:
        job = self.jobs.get(int(job_id))
        if job is None:
            return None
        facts = job.facts
        return JobDetail(
            id=facts.id, number=facts.number, state=facts.state, reason=facts.reason, key=facts.key
        )

    def release(self, job_id: str, *, patience: float | None = None) -> None:
        fault = self._fault("unreachable", "done, no answer", "done, then lost", "killed after")
        if fault == "unreachable":
            raise SlurmUnreachable("scontrol", "Socket timed out")
        job = self.jobs.get(int(job_id))
        if job is None or job.state is not JobState.PENDING:
            raise SlurmRefused("scontrol", "Invalid job id specified")
        self.stranger_released |= job.key is None
        job.held = False
        self._check()
        if fault == "killed after":
            raise ClientKilled
        if fault == "done, then lost":
            self.crash()
        if fault == "done, no answer":
            raise SlurmUnreachable("scontrol", "Socket timed out")

    def cancel(self, *job_ids: str, pending_only: bool = False) -> None:
        assert pending_only
        fault = self._fault("unreachable", "refused", "killed after")
        if fault == "unreachable":
            raise SlurmUnreachable("scancel", "Socket timed out")
        if fault == "refused":
            raise SlurmRefused("scancel", "Access denied")
        for number in map(int, job_ids):
            job = self.jobs.get(number)
            if job is not None and job.state is JobState.PENDING:
                assert job.held, "a job that was released is cancelled as a twin"
                job.state = JobState.CANCELLED
        if fault == "killed after":
            raise ClientKilled

    def pause(self, seconds: float) -> None:
        self.now += seconds
        self._time_passes()

    # What the world does.

    def crash(self) -> None:
        """The controller dies and comes back: jobs not saved are lost, their ids used again."""
        lost = [number for number, job in self.jobs.items() if not job.saved]
        for number in lost:
            del self.jobs[number]
        if lost:
            self.next_id = min(lost)
            self._accept(ModelJob(0, None, "stranger", held=True))  # somebody else's, held too

    def _accept(self, job: ModelJob) -> None:
        job.number, self.next_id = self.next_id, self.next_id + 1
        self.jobs[job.number] = job
        self._check()

    def _time_passes(self) -> None:
        for job in self.jobs.values():
            job.saved = True
            if job.state is JobState.RUNNING:
                job.state = JobState.COMPLETED
            elif job.state is JobState.PENDING and not job.held:
                job.state = JobState.RUNNING
                self.starts.append(job.key)
        due = [job for at, job in self.late if at <= self.now]
        self.late = [(at, job) for at, job in self.late if at > self.now]
        for job in due:
            self._accept(job)

    def finish(self) -> None:
        """Lets everything happen that still can."""
        self.now += 1e6
        for _ in range(3):
            self._time_passes()

    def _check(self) -> None:
        released: dict[str | None, int] = {}
        for job in self.jobs.values():
            if not job.held and job.state in (JobState.PENDING, JobState.RUNNING):
                released[job.key] = released.get(job.key, 0) + 1
        self.twice |= any(count > 1 for key, count in released.items() if key is not None)

    def _fault(self, *kinds: str) -> str:
        return self.draw((NONE, *kinds))

    def _delay(self) -> float:
        return float(self.draw(("0.5", "3", "20", "100")))
