"""The lease of one claimed attempt, kept by its holder: beats, and what it means if they fail."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from clusterseg.runs.claims import Patience, is_superseded
from clusterseg.runs.heartbeat import HeartbeatWriter
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Claim
from clusterseg.runs.takeover import boot_clock
from clusterseg.supervise.fence import Fence
from clusterseg.supervise.journal import Journal

_AFTER_THE_FENCE = 10.0  # seconds that it has to strike first


@dataclass(frozen=True)
class Loss:
    """Why the ranks may not go on. `superseded`: the run is another's; else the fence ends them."""

    why: str
    superseded: bool = False


class Lease(HeartbeatWriter):
    """The heartbeat of one attempt; the fence is told of every beat that is on the disk."""

    def __init__(
        self, run: RunPaths, claim: Claim, fence: Fence, patience: Patience, journal: Journal
    ) -> None:
        """To be made right after the claim, which counts as the first beat."""
        super().__init__(run.attempt(claim.attempt).heartbeat)
        self._run, self._claim, self._fence = run, claim, fence
        self._interval, self._journal = patience.interval, journal
        self._longest = patience.grace / 2 + _AFTER_THE_FENCE
        self._tried: float | None = None
        self._error: OSError | None = None
        self._beat = boot_clock()
        fence.beaten(self._beat)

    def beat(self) -> None:
        """Counts on, durably. Raises OSError."""
        now = boot_clock()
        super().beat()
        self._beat, self._error = now, None
        self._fence.beaten(now)

    def try_beat(self) -> None:
        """Beats where nothing can be done if that fails: the fence ends it in time."""
        with suppress(OSError):
            self.beat()

    def keep(self, *, urgent: bool = False) -> Loss | None:
        """Looks at the claims and beats if it is time to; the loss of the lease, if it is lost.

        `urgent`: it is time, since this process may have slept. The claims come first: whoever
        was fenced may also have been followed, and then has no say in how it ended.
        """
        now = boot_clock()
        silent = self._fence.struck(self._claim.attempt)
        due = self._tried is None or now - self._tried >= self._interval
        if not due and not urgent and silent is None:
            return None
        self._tried = now
        with suppress(OSError):
            if is_superseded(self._run, self._claim):
                following = self._claim.attempt + 1
                return Loss(f"attempt {following} was claimed by another process", superseded=True)
        if silent is not None:
            why = self._error or "the storage did not answer"
            return Loss(f"the heartbeat could not be written for {silent:.0f} s: {why}")
        try:
            self.beat()
        except OSError as error:
            self._error = error
            silent = now - self._beat
            said = f"the heartbeat can't be written for {silent:.0f} s: {error}"
            self._journal.say(said)
            if silent > self._longest:  # a host without room for a process has no fence
                return Loss(said)
        return None
