"""The Slurm job around one supervisor: asked, read, and queued again."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Sequence

from clusterseg import hostlist
from clusterseg.cluster.slurm import allocation as slurm_allocation
from clusterseg.cluster.slurm.allocation import Allocation, Life
from clusterseg.cluster.slurm.commands import (
    Slurm,
    SlurmError,
    SlurmMissing,
    SlurmRefused,
    SlurmUnreachable,
)
from clusterseg.cluster.slurm.jobs import JobDetail, JobState, carries
from clusterseg.cluster.slurm.keeping import keep_key
from clusterseg.plan.model import SlurmPlan
from clusterseg.runs.records import Cause, Claim
from clusterseg.supervise.journal import Journal
from clusterseg.supervise.scheduler import Queued
from clusterseg.supervise.slurm_job import (
    NO_WORD,
    Fate,
    Word,
    cause_of_life,
    cause_of_notice,
    is_another_life,
    is_own,
    notice_lead,
    read_word,
)

EVERY = 600.0  # seconds between two looks at our own job
_FRESH = 5.0  # seconds for which an answer about the end of the job is good enough
_SAME_PRESS = 2.0  # Slurm signals every process of the batch step: one INT comes twice
_STEPS_GONE = 15.0  # seconds that ended steps may take


class SlurmScheduler:
    """Our own job. `slurm` should be impatient: its answers are waited for while ranks run."""

    def __init__(
        self,
        job: Allocation,
        plan: SlurmPlan,
        slurm: Slurm,
        journal: Journal,
        *,
        key: str,
        time_limit: float | None,
        adopted_as: str | None = None,
    ) -> None:
        """`key` is that of the submission; `time_limit` what job.yaml asked for, in seconds.

        `adopted_as`: the name of the run, if this job made it (`sbatch` of a rendered script).
        """
        self._job, self._plan, self._key = job, plan, key
        # What Slurm's commands take. A script may have lost the variables of its array; the bare
        # number of a task can mean the whole array.
        self._id = job.job_id
        self._slurm, self._journal = slurm, journal
        self.restart_count = job.restart_count
        self.allotted = time_limit
        # Until Slurm says it itself.
        self.end_of_time = None if time_limit is None else time.monotonic() + time_limit
        self._asked: float | None = None
        self._near = notice_lead(plan.options)
        self._interrupted: float | None = None
        self._lives: list[Life] | None = None
        self._silent = False
        self._lost_id = False  # the id is another job's now
        self._runs_elsewhere = False  # a later life of the job does
        self._looked_for_twins = False
        self._adopted_as, self._is_kept = adopted_as, False

    def begin(self) -> Word:
        word = self.ask()
        if not self._plan.requeue and word.fate is Fate.RUNNING and word.may_requeue:
            # Our own requeue had to allow it; Slurm's is unwanted again.
            try:
                self._slurm.update(self._id, "Requeue=0")
            except SlurmError as error:
                self._journal.note(f"Slurm may requeue this job by itself: {error}")
        return word

    def claimed(self) -> None:
        if not self._looked_for_twins:
            self._looked_for_twins = True
            self._cancel_twins()
        self._keep_key()

    def look(self) -> Word | None:
        if self._asked is not None and time.monotonic() - self._asked < EVERY:
            return None
        word = self.ask()
        if word.fate is not Fate.UNKNOWN:  # one silence at a time: it holds up the heartbeat
            self._keep_key()
        return word

    def ask(self) -> Word:
        self._asked = time.monotonic()
        detail = None
        try:
            detail = self._show()
        except SlurmError as error:
            if not self._silent:
                self._journal.say(f"Slurm does not tell about job {self._id}: {error}")
            self._silent = True
        else:
            self._silent = False
        if detail is not None and not is_own(detail, self._key, os.getuid()):
            if not self._lost_id:
                self._journal.say(f"the id {self._id} is another job's now: Slurm lost ours")
            self._lost_id, detail = True, None
        if detail is not None:
            if detail.id != _whole(self._id):  # a record of all tasks that wait names no task
                self._id = detail.id
            # Slurm sets the variable only where it is not 0: in a job that one of its kind has
            # submitted with a bare sbatch stands the other's. And a controller may lose its count.
            self.restart_count = min(self.restart_count, detail.restarts)
        word = read_word(detail, self.restart_count)
        self._runs_elsewhere = detail is not None and is_another_life(
            detail, self._job.hosts, self.restart_count
        )
        if word.ends is not None:
            self.end_of_time = time.monotonic() + word.ends - time.time()
            if word.started is not None:
                self.allotted = max(0.0, word.ends - word.started)
        elif word.fate is Fate.RUNNING:  # without a limit
            self.end_of_time = self.allotted = None
        return word

    def _show(self) -> JobDetail | None:
        try:
            return self._slurm.show(self._id)
        except SlurmUnreachable as error:
            if not error.killed:
                raise
        # The TERM with which Slurm ends the batch step hits the program that we just asked, too:
        # without its word a requeue would look like a crash.
        return self._slurm.show(self._id)

    def confirm_end(self) -> None:
        if self._asked is None or time.monotonic() - self._asked > _FRESH:
            self.ask()

    def guess(self, number: int) -> Cause:
        return cause_of_notice(number, NO_WORD, self._left(), self._near)

    def meaning(self, number: int) -> Cause:
        word = self.ask()
        return cause_of_notice(number, word, self._left(), self._near)

    def hurries(self, number: int) -> bool:
        """Slurm repeats TERM on its own; only a person's second INT is meant as one."""
        if number != signal.SIGINT:
            return False
        now = time.monotonic()
        before, self._interrupted = self._interrupted, now
        return before is not None and now - before > _SAME_PRESS

    def lost_hosts(self, hosts: Sequence[str]) -> list[str]:
        try:
            return slurm_allocation.lost_nodes(self._slurm, hosts)
        except (SlurmError, ValueError) as error:
            self._journal.note(f"Slurm does not tell about nodes: {error}")
            return []

    def can_queue_again(self, cause: Cause) -> bool:
        if self._lost_id:
            return False
        if self._slurm.has("scontrol"):
            return True
        # Slurm queues again what it preempts or whose node it loses, and kills.
        return self._plan.requeue and cause in (Cause.PREEMPTED, Cause.NODE_FAIL)

    def queue_again(self, cause: Cause, word: Word, avoid: Sequence[str]) -> Queued:
        if self._lost_id:
            return Queued.REFUSED
        if word.requeued:
            self._avoid(avoid, word.excluded)
            return Queued.YES
        try:
            if not word.may_requeue:
                self._slurm.update(self._id, "Requeue=1")
            self._slurm.requeue(self._id)
        except SlurmUnreachable as error:
            self._journal.say(f"{error}")
            return Queued.UNANSWERED
        except SlurmMissing:
            return Queued.BY_ITSELF if self.can_queue_again(cause) else Queued.REFUSED
        except SlurmRefused as error:
            self._journal.say(f"Slurm does not queue job {self._id} again: {error}")
            return Queued.REFUSED
        # Only a job that waits can be told which nodes to avoid; ours waits from now on, while
        # KillWait runs for this process (done so with Slurm 22.05).
        self._avoid(avoid, word.excluded)
        return Queued.YES

    def end_steps(self, *, wait: bool = True, beat: Callable[[], None] | None = None) -> None:
        """A killed mpirun or srun may leave ranks on other nodes; its steps tell of them."""
        self.ask()
        if self._silent and beat is not None:  # two silences in a row could cost the lease
            beat()
        if self._lost_id or self._runs_elsewhere:
            return  # what runs under our id is not ours to end
        until = time.monotonic() + _STEPS_GONE
        try:
            while left := slurm_allocation.steps(self._slurm, self._id):
                if time.monotonic() > until:
                    self._journal.say(f"steps {', '.join(left)} do not end")
                    return
                slurm_allocation.end_steps(self._slurm, left)
                if not wait:
                    return
                time.sleep(1.0)
        except SlurmError as error:
            self._journal.note(f"steps that are left can't be ended: {error}")

    def cause_of_kill(self, claim: Claim) -> Cause:
        """By the accounting, where there is one: lives stand there in order, from restart 0."""
        if claim.job_id != self._job.job_id or claim.restart_count >= self.restart_count:
            return Cause.UNKNOWN
        if self._plan.accounting is False:  # the site's profile says so
            return Cause.UNKNOWN
        if self._lives is None:
            self._lives = []
            try:
                self._lives = slurm_allocation.earlier_lives(self._slurm, self._id)
            except SlurmError as error:
                self._journal.note(f"no accounting: {error}")
        if len(self._lives) != self.restart_count:  # lives are missing: which is which?
            return Cause.UNKNOWN
        return cause_of_life(self._lives[claim.restart_count])

    def job_lives(self, claim: Claim) -> bool | None:
        if not re.fullmatch(r"\d+(_\d+)?", claim.job_id):
            return None
        try:
            detail = self._slurm.show(claim.job_id)
        except SlurmError as error:
            self._journal.note(f"Slurm does not tell about job {claim.job_id}: {error}")
            return None
        if detail is None or detail.key is None:
            return None  # forgotten, or lost: its script may run on
        if not is_own(detail, claim.key, claim.uid):
            return False  # the id is another's now
        if detail.state in (JobState.COMPLETING, JobState.UNKNOWN):
            return None  # about to end
        return not detail.is_over

    def _keep_key(self) -> None:
        """Only by the key does a requeue surely find the run that this job made."""
        if self._adopted_as is not None and not self._is_kept and not self._lost_id:
            self._is_kept = keep_key(self._id, self._adopted_as, self._key, self._slurm)
            if not self._is_kept:
                self._journal.note("Slurm does not keep the run's key yet")

    def _cancel_twins(self) -> None:
        """Held jobs with our key: an sbatch that was accepted after it had been given up.

        The tasks of our own array carry the same key and are none.
        """
        try:
            found = {
                _whole(job.id)
                for job in self._slurm.mine()
                if job.is_held and carries(job, self._key)
            }
            twins = sorted(found - {_whole(self._id), str(self._job.number)})
            if twins:
                self._journal.say(f"cancelling held duplicates of this job: {', '.join(twins)}")
                self._slurm.cancel(*twins, pending_only=True)
        except SlurmError as error:
            self._journal.note(f"whether there are duplicates of this job is not known: {error}")

    def _avoid(self, hosts: Sequence[str], excluded: str) -> None:
        if not hosts:
            return
        try:
            avoided = list(
                dict.fromkeys([*(hostlist.expand(excluded) if excluded else []), *hosts])
            )
            size = slurm_allocation.partition_size(self._slurm, self._job.partition)
            if size is not None and size - len(avoided) < len(self._job.hosts):
                # It could never start again. Slurm itself gives no job a node that is down.
                self._journal.say(f"the partition is too small to do without {', '.join(hosts)}")
                return
            self._slurm.exclude(self._id, avoided)
        except (SlurmError, ValueError) as error:
            self._journal.say(f"{', '.join(hosts)} can't be excluded: {error}")
        else:
            self._journal.say(f"queued again without {', '.join(hosts)}")

    def _left(self) -> float | None:
        return None if self.end_of_time is None else self.end_of_time - time.monotonic()


def _whole(job_id: str) -> str:
    """The array that a task belongs to, or the job itself."""
    return job_id.partition("_")[0]
