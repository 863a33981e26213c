"""The end of one life of a job that is to start again.

A batch step that wants another attempt never simply ends: Slurm takes a script that ends within
the grace time for finished. It has itself queued again, and leaves when Slurm has begun to end it.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from clusterseg.runs.heartbeat import HeartbeatWriter
from clusterseg.runs.records import Cause
from clusterseg.supervise.journal import Journal
from clusterseg.supervise.scheduler import Queued, Scheduler
from clusterseg.supervise.signals import Wakeups
from clusterseg.supervise.slurm_job import Fate

_LOOK = 1.0  # seconds
_FIRST_RETRY, _LONGEST_RETRY = 2.0, 60.0  # seconds
_UNANSWERED = 3600.0  # seconds that a silent controller is asked again
# The controller answers before its state is on the disk (up to 1 s later with Slurm 22.05); one
# that crashes in between has forgotten the requeue, and then somebody must still be here.
_AFTER_TERM = 5.0
_UNTIL_TERM = 60.0  # seconds after a requeue; then it is asked what became of it
_UNTIL_KILLED = 1800.0  # seconds that a job without scontrol waits for Slurm to kill it


class Departure:
    """Leaves the allocation in the way that makes the job start again."""

    def __init__(
        self,
        scheduler: Scheduler,
        wakeups: Wakeups,
        journal: Journal,
        heartbeat: HeartbeatWriter | None = None,
        followed: Callable[[], bool] = lambda: False,
    ) -> None:
        """`heartbeat` is that of the attempt that has ended, None if none was claimed.

        `followed`: whether the next attempt was claimed. On a node that Slurm has given up that
        is all there is to see: nobody there is left to end this process.
        """
        self._scheduler, self._wakeups = scheduler, wakeups
        self._journal, self._heartbeat, self._followed = journal, heartbeat, followed

    def leave(self, cause: Cause, avoid: Sequence[str]) -> bool:
        """Returns when this process may end; False if the job will not start again.

        `avoid` are hosts that the next life shall not get.
        """
        until = time.monotonic() + _UNANSWERED
        retry = _FIRST_RETRY
        queued = Queued.UNANSWERED
        while time.monotonic() < until:
            word = self._scheduler.ask()  # also: it may have been done, though nobody said so
            if word.requeued and queued is Queued.YES:
                return True  # by now for sure; the slurmd that should end us may be dead
            if word.fate is Fate.CANCELLED:
                self._journal.say("the job is cancelled: it is not queued again")
                return False
            queued = self._scheduler.queue_again(cause, word, avoid)
            if queued is Queued.REFUSED and self._scheduler.ask().requeued:
                continue  # by Slurm, between our question and our wish
            if queued is Queued.REFUSED:
                self._journal.say("the job is not queued again; `clusterseg resume` goes on")
                return False
            if queued is Queued.BY_ITSELF:
                self._journal.say("there is no scontrol here: waiting for Slurm to kill this job")
                self._wait(_UNTIL_KILLED)
                return True
            if queued is Queued.YES:
                self._journal.say("the job is queued again")
                if self._wait_for_term() or self._is_followed():
                    return True
            else:
                self._journal.say(f"asking again in {retry:.0f} s")
                self._wait(retry)
                retry = min(2 * retry, _LONGEST_RETRY)
        self._journal.say("Slurm does not answer; `clusterseg resume` goes on")
        return False

    def _wait_for_term(self) -> bool:
        """Whether Slurm has begun to end this life of the job."""
        if not self._wait(_UNTIL_TERM, for_term=True):
            return False
        self._wait(_AFTER_TERM)
        return True

    def _is_followed(self) -> bool:
        with suppress(OSError):
            return self._followed()
        return False

    def _wait(self, seconds: float, *, for_term: bool = False) -> bool:
        """Waits, alive for all to see; whether TERM came, which ends the waiting `for_term`."""
        until = time.monotonic() + seconds
        terminated = False
        while (rest := until - time.monotonic()) > 0:
            self._wakeups.wait(min(rest, _LOOK))
            terminated |= signal.SIGTERM in self._wakeups.take()
            if (terminated and for_term) or self._is_followed():
                break
            with suppress(OSError):
                if self._heartbeat is not None:
                    self._heartbeat.beat()
        return terminated
