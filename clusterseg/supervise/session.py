"""One launch of the ranks, watched from start to end: signals, stop file, clock, heartbeat, hangs.

Looks once a second; a signal, or the launcher's end or output, wakes it at once.
"""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from dataclasses import dataclass

from clusterseg.plan.model import Plan
from clusterseg.runs.control import StopReason, read_stop, request_stop
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Cause, Claim, StopRequest
from clusterseg.supervise import limits
from clusterseg.supervise.causes import cause_of_request
from clusterseg.supervise.hang import HangWatch
from clusterseg.supervise.journal import Journal
from clusterseg.supervise.launch import Launcher
from clusterseg.supervise.lease import Lease
from clusterseg.supervise.limits import Timing
from clusterseg.supervise.placing import Placing
from clusterseg.supervise.reports import lost_hosts
from clusterseg.supervise.scheduler import Scheduler
from clusterseg.supervise.signals import Wakeups
from clusterseg.supervise.slurm_job import cause_of_fate
from clusterseg.supervise.watch import Watch

_SLEPT = 30.0  # seconds between two looks that mean: this process was stopped meanwhile
_SIGNAL_FOR_ALL = 2.0  # seconds in which one that was sent to all processes of a job is here, too


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


@dataclass
class Forced:
    """An end that the supervisor itself brought about, and the rank that it blames.

    `misplaced`: it was for the ranks' places.
    """

    cause: Cause
    error: str
    rank: int | None = None
    misplaced: bool = False


class Session:
    """Watches one launched attempt; `run` returns when the launcher has ended."""

    def __init__(
        self,
        run: RunPaths,
        plan: Plan,
        claim: Claim,
        launcher: Launcher,
        *,
        wakeups: Wakeups,
        journal: Journal,
        timing: Timing,
        lease: Lease,
        scheduler: Scheduler,
        expected_save: float | None = None,
    ) -> None:
        """`expected_save`: how long one may take, in seconds, as far as earlier attempts tell."""
        self.stop: Stop | None = None
        self.forced: Forced | None = None
        self.superseded = False
        self._run, self._plan, self._claim, self._launcher = run, plan, claim, launcher
        self._wakeups, self._journal, self._timing = wakeups, journal, timing
        self._lease, self._scheduler = lease, scheduler
        self._expected_save = expected_save
        self._stop_file = run.stop_file(claim.attempt)
        self._train = plan.spec.train is not None
        now = time.monotonic()
        self.watch = Watch(run.attempt(claim.attempt), claim.ranks, now)
        self._placing = Placing(plan, self.watch, journal)
        self._hangs = HangWatch(run, claim.attempt, self.watch, timing.hang, train=self._train)
        self._looked = now
        self._seen_request: StopRequest | None = None
        self._own_request: StopRequest | None = None
        self._terminated: float | None = None  # when the launcher was sent TERM
        self._killed = False
        self._lost: float | None = None  # when the launcher said that it lost one of our hosts
        self._failed: float | None = None  # when a rank was seen to say that it failed

    @property
    def lost_a_host(self) -> bool:
        """Whether the launcher said so of one of the ranks' hosts."""
        return self._lost is not None

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts of the ranks."""
        return tuple(self._claim.hosts)

    def run(self) -> None:
        """Returns when the launcher has ended and all that it printed is read."""
        while not self._launcher.ended():
            rest = self._looked + self._timing.look - time.monotonic()
            self._wakeups.wait(rest, self._launcher.descriptors)
            self._read(self._launcher.read_lines())
            for number in self._wakeups.take():
                self._on_signal(number)
            if time.monotonic() - self._looked >= self._timing.look:
                self._look()
        for line in self._launcher.drain():
            self._journal.launcher(line)
        self._take_last_signals()
        self._keep_lease()  # why they ended, if the fence did it while we could not look
        # The ranks may have read a request that was written after our last look.
        self._check_stop_file()
        if self.stop is None and self._terminated is None and not self.superseded:
            self.watch.look_at_all(time.monotonic())
            self._check_placement()  # they may have started and ended since

    def _take_last_signals(self) -> None:
        """TERM for all processes of a job ends ranks at once that know no better; without waiting
        for our own they would have crashed, and be started again in a job that is ending."""
        by_term = self._launcher.signal == signal.SIGTERM
        # Hydra's is the number of the signal itself.
        by_term |= self._launcher.exit_code in (128 + signal.SIGTERM, signal.SIGTERM)
        if self.stop is None and self._terminated is None and by_term:
            self._wakeups.wait(_SIGNAL_FOR_ALL)
        for number in self._wakeups.take():
            self._on_signal(number)

    def _read(self, lines: list[str]) -> None:
        for line in lines:
            self._journal.launcher(line)
        if self._lost is None and set(lost_hosts(lines)) & set(self.hosts):
            self._lost = time.monotonic()

    def _look(self) -> None:
        now = time.monotonic()
        gap = now - self._looked
        self._looked = now
        if gap > _SLEPT:
            self._journal.note(f"this process was stopped for {gap:.0f} s")
            for rank in self.watch.ranks:
                rank.grew += gap  # nobody looked: that is no silence
        self._keep_lease(urgent=gap > _SLEPT)
        self._check_stop_file()
        self.watch.look(now)
        self._check_placement()
        self._hear_scheduler()
        self._check_time(now)
        if self.stop is None and self._terminated is None:
            self._check_hang(now)
        self._enforce(now)

    def _keep_lease(self, *, urgent: bool = False) -> None:
        """Ends everything if the run is no longer ours, or nobody can see our beats."""
        loss = self._lease.keep(urgent=urgent)
        if loss is None:
            return
        if loss.superseded:
            self._journal.say(f"{loss.why}: ending the ranks of this one")
            self.superseded = True
            self._kill()
            return
        # The fence has sent TERM, and a second one makes an mpirun abandon its ranks.
        self._terminated = self._terminated or time.monotonic()
        self._force(Cause.CRASH, loss.why)

    def _check_stop_file(self) -> None:
        try:
            request = read_stop(self._stop_file)
        except OSError as error:
            self._journal.note(f"the stop file can't be read: {error}")
            return
        if request is None or request == self._seen_request:
            return
        self._seen_request = request
        now = request.reason == StopReason.CANCEL_NOW
        cause = cause_of_request(request.reason)
        self._ask(cause, f"stop file: {request.reason}", deadline=request.deadline, now=now)
        if self.stop is not None and request.reason == StopReason.SUPERSEDED:
            self.stop.superseded = True

    def _on_signal(self, number: int) -> None:
        name = signal.Signals(number).name
        hurry = self._scheduler.hurries(number)
        if self.stop is not None:
            if hurry:
                self._journal.say(f"{name} again: ending the ranks now")
                self._terminate()
            else:
                self._journal.note(f"{name} again")
            return
        self._ask(self._scheduler.guess(number), f"{name} at the supervisor")
        # The ranks know by now; the scheduler, which may be slow or silent, is asked after.
        self._keep_lease()
        self._correct(self._scheduler.meaning(number))

    def _correct(self, cause: Cause) -> None:
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

    def _hear_scheduler(self) -> None:
        word = self._scheduler.look()
        if word is None or self.stop is not None:
            return
        cause = cause_of_fate(word)
        if cause is not None:
            self._ask(cause, f"the scheduler says: {word.fate}")

    def _check_time(self, now: float) -> None:
        if self.stop is not None or not self._is_near_the_end(now):
            return
        self._keep_lease()  # Slurm was perhaps just asked, and may be silent twice
        self._scheduler.confirm_end()
        now = time.monotonic()
        if self._is_near_the_end(now):
            left = (self._scheduler.end_of_time or now) - now
            self._ask(Cause.TIME_LIMIT, f"the time limit is reached in {max(left, 0):.0f} s")

    def _is_near_the_end(self, now: float) -> bool:
        end, allotted = self._scheduler.end_of_time, self._scheduler.allotted
        if end is None or allotted is None:
            return False
        lead = limits.stop_lead(allotted, save=self._save, window=self.watch.window)
        return end - now <= lead

    @property
    def _save(self) -> float | None:
        """How long a save may take; None: nothing is known."""
        known = (self._expected_save, self.watch.longest_save)
        return max((seconds for seconds in known if seconds is not None), default=None)

    def _latest(self, now: float) -> float:
        """Until when ranks may run at all."""
        end = self._scheduler.end_of_time
        return float("inf") if end is None else max(end, now + self._timing.look)

    def _check_placement(self) -> None:
        error = self._placing.look()
        if error is not None:
            self._force(Cause.CRASH, error, misplaced=True)

    def _check_hang(self, now: float) -> None:
        found = self._hangs.find(now)
        if found is None:
            return
        if self._hangs.ask_for_stacks():
            self._wakeups.wait(self._timing.look)  # for them to be written
        self._force(Cause.HANG, found.error, rank=found.rank)

    def _ask(
        self, cause: Cause, reason: str, *, deadline: float | None = None, now: bool = False
    ) -> None:
        """Asks the ranks to stop together, by the stop file; a repetition only sharpens it."""
        at = time.monotonic()
        until = at + limits.stop_patience(
            self._timing,
            train=self._train,
            save=self._save,
            window=self.watch.window,
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

    def _write_request(self, cause: Cause, seconds: float) -> None:
        if self._seen_request is not None:
            return  # somebody else wrote it: the ranks see it already
        with suppress(OSError):
            if read_stop(self._stop_file) is not None:
                return  # since the last look; the next one takes it up
        request = StopRequest(reason=str(cause), deadline=round(time.time() + seconds, 3))
        self._seen_request = self._own_request = request
        try:
            request_stop(self._stop_file, request.reason, request.deadline)
        except OSError as error:
            self._journal.say(f"the ranks can't be asked to stop ({error}): ending them")
            self._terminate()

    def _sharpen_request(self, seconds: float) -> None:
        """Tells the ranks, which try to save until then, that there is less time than was said."""
        said = self._own_request
        with suppress(OSError):  # they know of the stop, and that counts more
            if said is None or read_stop(self._stop_file) != said:
                return  # somebody else's word counts
            deadline = round(time.time() + seconds, 3)
            self._own_request = StopRequest(reason=said.reason, deadline=deadline)
            self._seen_request = self._own_request
            request_stop(self._stop_file, said.reason, deadline)

    def _force(
        self, cause: Cause, error: str, rank: int | None = None, *, misplaced: bool = False
    ) -> None:
        if self.forced is None:
            what = f"{cause}" if self._launcher.ended() else f"ending the ranks ({cause})"
            self._journal.say(f"{error}: {what}")
            self.forced = Forced(cause, error, rank, misplaced)
            self._terminate()

    def _enforce(self, now: float) -> None:
        # Ranks that wait for one on a lost host never stop, and srun waits for them longer than
        # Slurm lets this process live: how it ended would not be recorded.
        lost = self._lost is not None and now - self._lost >= self._timing.lost
        if self._terminated is None and lost:
            self._journal.say("the ranks did not end with the host that was lost: ending them")
            self._terminate()
        if self._terminated is None and self.stop is None:
            self._end_with_a_failed_rank(now)
        if self._terminated is None and self.stop is not None and self._is_over(self.stop, now):
            self._journal.say("the ranks did not stop in time: ending them")
            self._terminate()
        if self._terminated is not None and now - self._terminated >= self._timing.terminate:
            self._kill()

    def _end_with_a_failed_rank(self, now: float) -> None:
        """A launcher that goes on without a rank: those with Hydra do unless it was inside of MPI,
        and hang, MPICH's 5.0.2 with hosts of its own, even where it was."""
        if self.watch.failed is None:
            return
        self._failed = now if self._failed is None else self._failed
        if now - self._failed >= self._timing.cleanup and not self._hangs.is_saving(now):
            rank = self.watch.failed.rank
            self._journal.say(f"rank {rank} failed and the launcher goes on: ending the others")
            self._terminate()

    def _is_over(self, stop: Stop, now: float) -> bool:
        """Whether ranks that were asked to stop have had their time: a save may end if it can."""
        if now < stop.until:
            return False
        end = self._scheduler.end_of_time
        late = now >= stop.deadline or (end is not None and now >= end)
        return stop.now or late or not self._hangs.is_saving(now)

    def _terminate(self) -> None:
        if self._terminated is None and not self._launcher.ended():
            self._terminated = time.monotonic()
            self._launcher.send(signal.SIGTERM)

    def _kill(self) -> None:
        if not self._killed and not self._launcher.ended():
            self._killed = True
            self._terminated = self._terminated or time.monotonic()
            self._launcher.send(signal.SIGKILL)
