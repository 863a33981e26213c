"""What may stop a run while no ranks run: before an attempt's start, and between two attempts."""

from __future__ import annotations

import signal
import time
from contextlib import suppress

from clusterseg.runs.control import StopReason, read_stop
from clusterseg.runs.heartbeat import HeartbeatWriter
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Cause, Claim, StopRequest
from clusterseg.supervise.causes import cause_of_request
from clusterseg.supervise.journal import Journal
from clusterseg.supervise.scheduler import Scheduler
from clusterseg.supervise.signals import Wakeups
from clusterseg.supervise.slurm_job import Fate, Word, cause_of_fate
from clusterseg.supervise.stopping import Stop


class Between:
    """Signals, stop files and the end of the allocation while there is nobody to stop."""

    def __init__(
        self,
        run: RunPaths,
        scheduler: Scheduler,
        wakeups: Wakeups,
        journal: Journal,
        *,
        look: float,
    ) -> None:
        """`look`: seconds between two looks at the stop file."""
        self._run, self._scheduler = run, scheduler
        self._wakeups, self._journal, self._look = wakeups, journal, look
        self._stop: Stop | None = None

    def hear(self, word: Word) -> None:
        """Takes the scheduler's first word. Its notice may have come before anybody listened.

        A job that is queued again already needs none: TERM follows.
        """
        cause = cause_of_fate(word)
        if cause is not None and word.fate in (Fate.PREEMPTED, Fate.TIME_LIMIT):
            self._stop = Stop(cause, f"the scheduler says: {word.fate}", 0.0)

    def stop(self, claim: Claim) -> Stop | None:
        """Why the ranks of a claimed attempt are not to be started; None: they are."""
        self._take_signals()
        return self._stop or self._requested(claim) or self._out_of_time()

    def back_off(self, claim: Claim, seconds: float, heartbeat: HeartbeatWriter) -> None:
        """Waits before the next attempt, alive for all to see; a request to stop ends it."""
        self._journal.say(f"next attempt in {seconds:.0f} s")
        until = time.monotonic() + seconds
        known = self._request(claim)
        while self._stop is None and (rest := until - time.monotonic()) > 0:
            self._wakeups.wait(min(rest, self._look))
            self._take_signals()
            request = self._request(claim)
            if request is not None and request != known:
                self._stop = self._requested(claim)
            with suppress(OSError):
                heartbeat.beat()

    def _take_signals(self) -> None:
        for number in self._wakeups.take():
            reason = f"{signal.Signals(number).name} at the supervisor"
            self._stop = Stop(self._scheduler.meaning(number), reason, 0.0)

    def _requested(self, claim: Claim) -> Stop | None:
        request = self._request(claim)
        if request is None:
            return None
        return Stop(
            cause_of_request(request.reason),
            f"stop file: {request.reason}",
            0.0,
            now=request.reason == StopReason.CANCEL_NOW,
            superseded=request.reason == StopReason.SUPERSEDED,
        )

    def _request(self, claim: Claim) -> StopRequest | None:
        """What stands in the stop file; one that can't be read now is looked at again later."""
        try:
            return read_stop(self._run.stop_file(claim.attempt))
        except OSError as error:
            self._journal.note(f"the stop file can't be read: {error}")
            return None

    def _out_of_time(self) -> Stop | None:
        end = self._scheduler.end_of_time
        if end is None or time.monotonic() < end:
            return None
        return Stop(Cause.TIME_LIMIT, "the time limit is reached", 0.0)
