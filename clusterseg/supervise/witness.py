"""What a claim asks of the world, answered for jobs without a scheduler."""

from __future__ import annotations

import signal

from clusterseg.cluster.processes import ProcessId, is_alive
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Claim
from clusterseg.supervise.journal import Journal
from clusterseg.supervise.launch import end_what_is_left
from clusterseg.supervise.signals import Wakeups


class Interrupted(Exception):
    """A signal came while nothing was claimed yet."""


class LocalWitness:
    """The `Witness` of claims: a local job is its supervisor's process."""

    def __init__(
        self, run: RunPaths, wakeups: Wakeups, journal: Journal, *, cleanup: float
    ) -> None:
        """`cleanup`: seconds for killed processes to be gone."""
        self._run, self._wakeups, self._journal, self._cleanup = run, wakeups, journal, cleanup

    def process_lives(self, claim: Claim) -> bool | None:
        return is_alive(ProcessId(claim.host, claim.boot_id, claim.pid, claim.pid_start))

    def job_lives(self, claim: Claim) -> bool | None:
        return self.process_lives(claim)

    def clean_up(self, claim: Claim) -> None:
        left = end_what_is_left(self._run, claim.attempt, within=self._cleanup)
        if left:
            self.say(f"killed {left} processes that attempt {claim.attempt} left behind")

    def pause(self, seconds: float) -> None:
        """Raises Interrupted if a signal came."""
        self._wakeups.wait(seconds)
        for number in self._wakeups.take():
            self.say(f"{signal.Signals(number).name}: no attempt is claimed")
            raise Interrupted

    def say(self, message: str) -> None:
        self._journal.say(message)
