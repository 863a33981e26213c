"""The stop that the ranks of an attempt are asked for: by whom, why, and how long it may take."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from clusterseg.runs.control import StopReason, read_stop, request_stop
from clusterseg.runs.records import Cause, StopRequest
from clusterseg.supervise import limits
from clusterseg.supervise.causes import cause_of_request
from clusterseg.supervise.journal import Journal
from clusterseg.supervise.limits import Timing
from clusterseg.supervise.scheduler import Scheduler
from clusterseg.supervise.watch import Watch


@dataclass
class Stop:
    """A stop that was asked for. Times are by the monotonic clock.

    `until`: how long the ranks may take; `deadline`: how long even while they save.
    """

    cause: Cause
    reason: str
    until: float
    now: bool = False
    superseded: bool = False  # asked by the next attempt, which waits
    deadline: float = float("inf")


class Stopping:
    """Asks the ranks by the stop file, and takes up what others write into it."""

    def __init__(
        self,
        file: Path,
        watch: Watch,
        scheduler: Scheduler,
        *,
        journal: Journal,
        timing: Timing,
        train: bool,
        expected_save: float | None,
        terminate: Callable[[], None],
    ) -> None:
        """`terminate` ends ranks that are to end now, or can't be asked."""
        self.stop: Stop | None = None
        self.file = file
        self._watch, self._scheduler = watch, scheduler
        self._journal, self._timing = journal, timing
        self._train, self._expected_save = train, expected_save
        self._terminate = terminate
        self._seen_request: StopRequest | None = None
        self._own_request: StopRequest | None = None

    @property
    def save(self) -> float | None:
        """How long a save may take; None: nothing is known."""
        known = (self._expected_save, self._watch.longest_save)
        return max((seconds for seconds in known if seconds is not None), default=None)

    def look(self) -> None:
        """Takes up what is new in the stop file."""
        try:
            request = read_stop(self.file)
        except OSError as error:
            self._journal.note(f"the stop file can't be read: {error}")
            return
        if request is None or request == self._seen_request:
            return
        self._seen_request = request
        now = request.reason == StopReason.CANCEL_NOW
        cause = cause_of_request(request.reason)
        self.ask(cause, f"stop file: {request.reason}", deadline=request.deadline, now=now)
        if self.stop is not None and request.reason == StopReason.SUPERSEDED:
            self.stop.superseded = True

    def ask(
        self, cause: Cause, reason: str, *, deadline: float | None = None, now: bool = False
    ) -> None:
        """Asks the ranks to stop together; a repetition only sharpens it."""
        at = time.monotonic()
        until = at + limits.stop_patience(
            self._timing, train=self._train, save=self.save, window=self._watch.window
        )
        last = float("inf") if deadline is None else at + max(0.0, deadline - time.time())
        until = min(until, last, self._latest(at))
        if self.stop is None:
            self._journal.say(f"{reason}: the ranks are asked to stop ({cause})")
            self.stop = Stop(cause, reason, until, now, deadline=last)
            self._write_request(cause, until - at)
        elif cause is Cause.CANCELLED:
            self._journal.say(f"{reason}: {cause}")
            self.stop = Stop(
                cause,
                reason,
                min(until, self.stop.until),
                now or self.stop.now,
                self.stop.superseded,
                min(last, self.stop.deadline),
            )
        if now:
            self._terminate()

    def correct(self, cause: Cause) -> None:
        """Takes the scheduler's word for why the stop was asked for, and for how long is left."""
        if self.stop is None or self.stop.cause is Cause.CANCELLED:
            return
        if cause is not self.stop.cause:
            self._journal.say(f"the scheduler says: {cause}")
            self.stop.cause = cause
        now = time.monotonic()
        latest = self._latest(now)
        if latest < self.stop.until:
            self.stop.until = latest
            self._sharpen_request(latest - now)

    def is_over(self, now: float, is_saving: Callable[[float], bool]) -> bool:
        """Whether ranks that were asked to stop have had their time: a save may end if it can."""
        stop = self.stop
        if stop is None or now < stop.until:
            return False
        end = self._scheduler.end_of_time
        late = now >= stop.deadline or (end is not None and now >= end)
        return stop.now or late or not is_saving(now)

    def _latest(self, now: float) -> float:
        """Until when ranks may run at all."""
        end = self._scheduler.end_of_time
        return float("inf") if end is None else max(end, now + self._timing.look)

    def _write_request(self, cause: Cause, seconds: float) -> None:
        if self._seen_request is not None:
            return  # somebody else wrote it: the ranks see it already
        with suppress(OSError):
            if read_stop(self.file) is not None:
                return  # since the last look; the next one takes it up
        request = StopRequest(reason=str(cause), deadline=round(time.time() + seconds, 3))
        self._seen_request = self._own_request = request
        try:
            request_stop(self.file, request.reason, request.deadline)
        except OSError as error:
            self._journal.say(f"the ranks can't be asked to stop ({error}): ending them")
            self._terminate()

    def _sharpen_request(self, seconds: float) -> None:
        """Tells the ranks, which try to save until then, that there is less time than was said."""
        said = self._own_request
        with suppress(OSError):  # they know of the stop, and that counts more
            if said is None or read_stop(self.file) != said:
                return  # somebody else's word counts
            deadline = round(time.time() + seconds, 3)
            self._own_request = StopRequest(reason=said.reason, deadline=deadline)
            self._seen_request = self._own_request
            request_stop(self.file, said.reason, deadline)
