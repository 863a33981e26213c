"""One launch of the ranks, watched from start to end: signals, stop file, clock, heartbeat, hangs.

Looks once a second; a signal, or the launcher's end or output, wakes it at once.
"""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass

from clusterseg.plan.model import Plan
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Cause, Claim
from clusterseg.supervise import limits
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
from clusterseg.supervise.stopping import Stop, Stopping
from clusterseg.supervise.watch import Watch

_SLEPT = 30.0  # seconds between two looks that mean: this process was stopped meanwhile
_SIGNAL_FOR_ALL = 2.0  # seconds in which one that was sent to all processes of a job is here, too


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
        self.forced: Forced | None = None
        self.superseded = False
        self._claim, self._launcher = claim, launcher
        self._wakeups, self._journal, self._timing = wakeups, journal, timing
        self._lease, self._scheduler = lease, scheduler
        train = plan.spec.train is not None
        now = time.monotonic()
        self.watch = Watch(run.attempt(claim.attempt), claim.ranks, now)
        self._stopping = Stopping(
            run.stop_file(claim.attempt),
            self.watch,
            scheduler,
            journal=journal,
            timing=timing,
            train=train,
            expected_save=expected_save,
            terminate=self._terminate,
        )
        self._placing = Placing(plan, self.watch, journal)
        self._hangs = HangWatch(run, claim.attempt, self.watch, timing.hang, train=train)
        self._looked = now
        self._terminated: float | None = None  # when the launcher was sent TERM
        self._killed = False
        self._lost: float | None = None  # when the launcher said that it lost one of our hosts
        self._failed: float | None = None  # when a rank was seen to say that it failed

    @property
    def stop(self) -> Stop | None:
        """The stop that was asked for."""
        return self._stopping.stop

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
        self._stopping.look()
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
        self._stopping.look()
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
        self._stopping.ask(self._scheduler.guess(number), f"{name} at the supervisor")
        # The ranks know by now; the scheduler, which may be slow or silent, is asked after.
        self._keep_lease()
        self._stopping.correct(self._scheduler.meaning(number))

    def _hear_scheduler(self) -> None:
        word = self._scheduler.look()
        if word is None or self.stop is not None:
            return
        cause = cause_of_fate(word)
        if cause is not None:
            self._stopping.ask(cause, f"the scheduler says: {word.fate}")

    def _check_time(self, now: float) -> None:
        if self.stop is not None or not self._is_near_the_end(now):
            return
        self._keep_lease()  # Slurm was perhaps just asked, and may be silent twice
        self._scheduler.confirm_end()
        now = time.monotonic()
        if self._is_near_the_end(now):
            left = max((self._scheduler.end_of_time or now) - now, 0)
            self._stopping.ask(Cause.TIME_LIMIT, f"the time limit is reached in {left:.0f} s")

    def _is_near_the_end(self, now: float) -> bool:
        end, allotted = self._scheduler.end_of_time, self._scheduler.allotted
        if end is None or allotted is None:
            return False
        lead = limits.stop_lead(allotted, save=self._stopping.save, window=self.watch.window)
        return end - now <= lead

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
        if self._terminated is None and self._stopping.is_over(now, self._hangs.is_saving):
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

    def _terminate(self) -> None:
        if self._terminated is None and not self._launcher.ended():
            self._terminated = time.monotonic()
            self._launcher.send(signal.SIGTERM)

    def _kill(self) -> None:
        if not self._killed and not self._launcher.ended():
            self._killed = True
            self._terminated = self._terminated or time.monotonic()
            self._launcher.send(signal.SIGKILL)
