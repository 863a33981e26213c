"""Gets a submission's job into Slurm's queue, once: acts on what `slurm_protocol` decides."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Never, Protocol

from msgspec import Struct
from msgspec.structs import replace

from clusterseg.cluster.slurm.commands import SlurmMissing, SlurmRefused, SlurmUnreachable
from clusterseg.cluster.slurm.jobs import JobDetail, JobFacts, job_comment, job_name
from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.submit.queueing_errors import JobGone, Outdated, never_shown, not_released
from clusterseg.submit.slurm_protocol import (
    QUIET,
    Ask,
    Cancel,
    Done,
    Gone,
    Known,
    Record,
    Refuse,
    Release,
    Sighting,
    Step,
    Submit,
    next_step,
    sightings,
    task_sightings,
)

PATIENCE = 300.0  # seconds in all, while Slurm does not answer
FRESH = 1.0  # seconds for which an answer of the queue may be acted on
SHORT = 5.0  # seconds for a release: it is repeated at will, and must not wait for a new controller
PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0)  # seconds between tries; the last one again and again
MOST_RELEASES = 6  # of a job that stays held
MOST_LOST = 5  # jobs that sbatch acknowledged and the queue never showed


class Controller(Protocol):
    """What is asked of Slurm (`clusterseg.cluster.slurm.commands.Slurm`)."""

    def submit(self, options: Sequence[str], script: Path, *, directory: Path) -> str: ...
    def mine(self) -> list[JobFacts]: ...
    def show(self, job_id: str) -> JobDetail | None: ...
    def release(self, job_id: str, *, patience: float | None = None) -> None: ...
    def cancel(self, *job_ids: str, pending_only: bool = False) -> None: ...


class Wanted(Struct, frozen=True, kw_only=True):
    """What is submitted. `name` is the job's for people, `directory` where sbatch is called.

    `recorded` is the id that an earlier client noted; `doubt`: one may have called sbatch.
    `task`: the one that is looked for, of an array that may have been released before.
    `is_shared`: the job is that of several runs.
    """

    name: str
    key: str
    options: tuple[str, ...]
    script: Path
    directory: Path
    recorded: str | None = None
    doubt: bool = False
    task: SpentTask | None = None
    is_shared: bool = False


class SpentTask(Struct, frozen=True):
    """A task of an array that is not submitted again (`slurm_protocol.task_sightings`)."""

    number: int
    array: str | None
    untouched: bool


class NotSubmitted(ClustersegError):
    """It ended without a job. `clean`: surely none of this submission exists, nor will."""

    def __init__(self, error: ClustersegError, *, clean: bool) -> None:
        self.clean = clean
        super().__init__(error.message, code=error.code, help=error.help, exit_code=error.exit_code)


class OutOfPatience(ClustersegError):
    """Slurm did not answer for so long; the same call goes on where this one ended."""


def have_queued(
    wanted: Wanted,
    slurm: Controller,
    record: Callable[[str], None],
    *,
    patience: float = PATIENCE,
    is_newest: Callable[[], bool] = lambda: True,
    say: Callable[[str], None] = lambda text: None,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> str:
    """Submits and releases the job; returns its id (of an array without a task).

    May be called again and by several processes at once, under the same key. `record` notes
    the id durably. `is_newest`: whether the run still waits for this very submission; this client
    may have slept for long. Raises NotSubmitted, OutOfPatience, Outdated, JobGone, and what
    `record` raises; the job is held then, if there is one.
    """
    return _Queueing(
        wanted,
        slurm,
        record,
        clock() + patience,
        is_newest=is_newest,
        say=say,
        clock=clock,
        pause=pause,
    ).run()


@dataclass
class _Queueing:
    """One client's way to the job."""

    wanted: Wanted
    slurm: Controller
    record: Callable[[str], None]
    deadline: float
    _: KW_ONLY
    is_newest: Callable[[], bool]
    say: Callable[[str], None]
    clock: Callable[[], float]
    pause: Callable[[float], None]

    def __post_init__(self) -> None:
        wanted = self.wanted
        spent = wanted.task is not None
        self._known = Known(doubt=wanted.doubt or spent, recorded=wanted.recorded, spent=spent)
        self._asked_at = 0.0
        self._acknowledged: str | None = None  # by the last sbatch, not seen in the queue yet
        self._lost = 0
        self._refusal: ClustersegError | None = None
        self._tries = 0  # in a row, without an answer
        self._complaint = ""  # the last one that was told
        self._releases, self._unreleased = 0, "it is held again at once"

    def run(self) -> str:
        while True:
            if self.clock() - self._asked_at > FRESH:
                self._learn(jobs=None)
            step = next_step(self._known)
            if isinstance(step, Done):
                return step.job_id
            if isinstance(step, Gone):
                raise JobGone
            if isinstance(step, Refuse) and self._refusal is not None:
                raise NotSubmitted(self._refusal, clean=step.clean)
            try:
                self._do(step)
            except SlurmUnreachable as error:
                if self._refusal is not None and not self._known.doubt:
                    raise NotSubmitted(self._refusal, clean=False) from None
                self._learn(jobs=None)
                self._wait(error)

    def _do(self, step: Step) -> None:
        match step:
            case Submit():
                self._submit()
            case Ask(after):
                if after:
                    self.pause(after)
                self._ask()
            case Record(job_id):
                self.record(job_id)
                self._learn(recorded=job_id)
            case Cancel(job_ids):
                self._cancel(job_ids)
            case Release(job_id):
                self._release(job_id)

    def _submit(self) -> None:
        if not self.is_newest():
            raise Outdated(None)
        wanted = self.wanted
        options = (
            *wanted.options,
            "--hold",
            f"--job-name={job_name(wanted.name, wanted.key)}",
            f"--comment={job_comment(wanted.key)}",
        )
        doubted = self._known.doubt
        # Before the call: whatever ends it, the job may be there.
        self._known = replace(self._known, doubt=True, refused=False, jobs=None, quiet=0)
        try:
            self._acknowledged = self.slurm.submit(
                options, wanted.script, directory=wanted.directory
            )
        except SlurmRefused as error:
            self._refusal = error
            self._learn(refused=True, doubt=doubted)
        except SlurmMissing as error:
            raise NotSubmitted(error, clean=not doubted) from None

    def _ask(self) -> None:
        try:
            found = self._sight(self.slurm.mine())
        except SlurmRefused as error:
            raise SlurmUnreachable("squeue", error.said) from None
        except SlurmMissing as error:
            raise NotSubmitted(error, clean=False) from None
        if any(job.id == self._acknowledged for job in found):
            self._acknowledged = None
        for job_id in dict.fromkeys((self._acknowledged, self._known.recorded)):
            if not found and job_id is not None:
                found = self._second_witness(job_id)
        if not found and self._known.quiet + 1 == QUIET:
            self._count_loss()
        self._asked_at = self.clock()
        self._tries = 0
        # One that was cancelled while it waited, and whose id nobody noted, is no sign of a job.
        seen = any(
            job.live or job.held or job.ran or job.id == self._known.recorded for job in found
        )
        self._learn(jobs=found, quiet=0 if seen else self._known.quiet + 1)

    def _second_witness(self, job_id: str) -> tuple[Sighting, ...]:
        """The job, if it is there although squeue shows nothing: its answer may be empty or cut."""
        try:
            detail = self.slurm.show(job_id)
        except SlurmRefused:
            return ()
        if detail is None or detail.key != self.wanted.key:
            return ()
        return self._sight([_facts(detail, job_id)])

    def _sight(self, jobs: Sequence[JobFacts]) -> tuple[Sighting, ...]:
        key, task = self.wanted.key, self.wanted.task
        if task is None:
            return sightings(jobs, key)
        return task_sightings(jobs, key, task.number, task.array, untouched=task.untouched)

    def _count_loss(self) -> None:
        """The controller has lost what sbatch acknowledged, or the queue shows us nothing ever."""
        if self._acknowledged is None:
            return
        self._acknowledged = None
        self._lost += 1
        if self._lost >= MOST_LOST:
            raise NotSubmitted(never_shown(self._lost), clean=False)

    def _cancel(self, job_ids: tuple[str, ...]) -> None:
        self.say(f"cancelling {', '.join(job_ids)}, submitted twice and held")
        try:
            self.slurm.cancel(*job_ids, pending_only=True)
        except SlurmRefused as error:  # held as they are, they harm nobody
            self.say(error.message)
        self._learn(jobs=None, left=self._known.left.union(job_ids))

    def _release(self, job_id: str) -> None:
        self._learn(jobs=None)
        if self._releases:
            self.pause(PAUSES[min(self._releases, len(PAUSES)) - 1])
        if self._releases > MOST_RELEASES:
            raise not_released(job_id, self._unreleased)
        if not self.is_newest():
            if self.wanted.is_shared:  # others wait for it, or its tasks are theirs: it stays held
                raise Outdated(None)
            self._cancel_own(job_id)
        self._releases += 1
        try:
            self.slurm.release(job_id, patience=SHORT)
        except SlurmRefused as error:  # it ended, the id is gone, or we may not: the queue tells
            self._unreleased = error.said

    def _cancel_own(self, job_id: str) -> Never:
        try:
            self.slurm.cancel(job_id, pending_only=True)
        except SlurmRefused as error:  # it stays held
            self.say(error.message)
            raise Outdated(None) from None
        raise Outdated(job_id)

    def _learn(self, **what: object) -> None:
        self._known = replace(self._known, **what)

    def _wait(self, error: SlurmUnreachable) -> None:
        """After no answer: waits for longer and longer, up to the end of the patience."""
        left = self.deadline - self.clock()
        if left <= 0:
            raise OutOfPatience(error.message, code=error.code, exit_code=ExitCode.CLUSTER)
        if error.said != self._complaint:
            self._complaint = error.said
            self.say(f"{error.message}\ntrying again, for {left:.0f} s at most")
        self.pause(min(PAUSES[min(self._tries, len(PAUSES) - 1)], left))
        self._tries += 1


def _facts(detail: JobDetail, job_id: str) -> JobFacts:
    """As the queue would show it, where tasks that wait are not one."""
    return JobFacts(
        id=job_id,
        number=detail.number,
        state=detail.state,
        reason=detail.reason,
        key=detail.key,
        node_list=detail.node_list,
    )
