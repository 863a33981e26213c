"""What a claim asks of the world: processes of this host, and the scheduler's word on jobs."""

from __future__ import annotations

import signal

from clusterseg.cluster.processes import ProcessId, is_alive
from clusterseg.runs.claims import read_end
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Claim
from clusterseg.runs.store import read_intent
from clusterseg.supervise.journal import Journal
from clusterseg.supervise.launch import end_what_is_left
from clusterseg.supervise.scheduler import Scheduler
from clusterseg.supervise.signals import Wakeups


class Interrupted(Exception):
    """A signal, `number`, came while nothing was claimed yet."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Onlooker:
    """The `Witness` of claims."""

    def __init__(
        self,
        run: RunPaths,
        job_id: str,
        scheduler: Scheduler,
        wakeups: Wakeups,
        journal: Journal,
        *,
        cleanup: float,
        cluster: str | None = None,
    ) -> None:
        """`job_id` is our own; `cleanup`: seconds for killed processes to be gone; `cluster`: whose
        scheduler it is, where that is known."""
        self._run, self._job_id, self._scheduler = run, job_id, scheduler
        self._cluster = cluster
        self._wakeups, self._journal, self._cleanup = wakeups, journal, cleanup

    def process_lives(self, claim: Claim) -> bool | None:
        return is_alive(ProcessId(claim.host, claim.boot_id, claim.pid, claim.pid_start))

    def job_lives(self, claim: Claim) -> bool | None:
        """A job without a scheduler is its supervisor's process."""
        if claim.job_id.startswith("local-"):
            return self.process_lives(claim)
        intent = read_intent(self._run.submission(claim.submission))
        where = intent.cluster if intent is not None else None
        if None not in (where, self._cluster) and where != self._cluster:
            return None  # our scheduler knows another job of that id, or none
        return self._scheduler.job_lives(claim)

    def clean_up(self, claim: Claim) -> None:
        left = end_what_is_left(self._run, claim.attempt, within=self._cleanup)
        if left:
            self.say(f"killed {left} processes that attempt {claim.attempt} left behind")
        if claim.job_id == self._job_id and read_end(self._run, claim.attempt) is None:
            self._scheduler.end_steps()  # its supervisor was killed: nobody else ended them

    def pause(self, seconds: float) -> None:
        """Raises Interrupted if a signal came."""
        self._wakeups.wait(seconds)
        for number in self._wakeups.take():
            self.say(f"{signal.Signals(number).name}: no attempt is claimed")
            raise Interrupted(number)

    def say(self, message: str) -> None:
        self._journal.say(message)
