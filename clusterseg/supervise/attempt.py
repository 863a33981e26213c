"""`clusterseg attempt`: claim, run the launch line, write how it ended, restart within budget.

The loop of design: one claim a launch of the ranks. What decides stands in `policy`, what
watches in `session`; here the two are tied to the run directory.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from clusterseg.cluster.processes import oom_kills
from clusterseg.cluster.slurm.configuration import present_cluster
from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.plan.rank_table import rank_table_of
from clusterseg.runs import files
from clusterseg.runs.claims import Wanted, claim_next, is_superseded, write_end
from clusterseg.runs.fit import fits_of
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Cause, Claim, State
from clusterseg.runs.space import room_again
from clusterseg.supervise.ballast import Ballast
from clusterseg.supervise.between import Between
from clusterseg.supervise.conclude import Conclusion, conclude
from clusterseg.supervise.departure import Departure
from clusterseg.supervise.fence import Fence
from clusterseg.supervise.history import (
    budgets,
    ended_before,
    position,
    rolls_back,
    saves_before,
    why_over,
)
from clusterseg.supervise.journal import Journal
from clusterseg.supervise.launch import Launcher, end_what_is_left, launch_argv, rank_environment
from clusterseg.supervise.lease import Lease
from clusterseg.supervise.limits import Timing, expected_save, fence_terms
from clusterseg.supervise.notify import notify
from clusterseg.supervise.opening import Opening, open_run
from clusterseg.supervise.own_folder import make_own_folder, remove_own_folder
from clusterseg.supervise.packing import pack_old_attempts
from clusterseg.supervise.policy import (
    Action,
    Decision,
    Ended,
    decide,
    prevailing,
    refuse,
)
from clusterseg.supervise.schedulers import scheduler_of, timing_of
from clusterseg.supervise.session import Session
from clusterseg.supervise.signals import Wakeups
from clusterseg.supervise.stopping import Stop
from clusterseg.supervise.witness import Interrupted, Onlooker


def supervise(
    run_dir: Path,
    argv: Sequence[str] = (),
    *,
    environ: Mapping[str, str] = os.environ,
    timing: Timing | None = None,
) -> int:
    """Runs attempts of a run until one needs no successor; returns the run's exit code.

    `argv` is the launch line as the batch script shows it (empty: that of the plan). Also 0,
    with nothing touched, if another job holds the run or it is done already. Raises
    ClustersegError if the run directory can't be used.
    """
    run = RunPaths(Path(os.path.abspath(run_dir)))  # noqa: PTH100 (links stay as they are written)
    try:
        with Wakeups() as wakeups:
            opening = open_run(run, argv, environ)
            timing = timing or timing_of(opening.plan)
            with Fence(fence_terms(timing)) as fence:
                return _Supervisor(opening, environ, timing, wakeups, fence).loop()
    except OSError as error:
        raise ClustersegError(
            f"{error.filename or run.root}: {error.strerror or error}",
            code="run-dir",
            help="the run directory must be writable and have space",
            exit_code=ExitCode.FAILED,
        ) from error


class _Supervisor:
    """One process's attempts of one run."""

    def __init__(
        self,
        opening: Opening,
        environ: Mapping[str, str],
        timing: Timing,
        wakeups: Wakeups,
        fence: Fence,
    ) -> None:
        self._opening, self._run, self._plan = opening, opening.run, opening.plan
        self._rank_table = rank_table_of(self._plan)
        self._fits = fits_of(self._plan.spec.train, force=self._plan.force)
        self._environ, self._timing = environ, timing
        self._wakeups, self._fence = wakeups, fence
        self._journal = Journal()
        self._scheduler = scheduler_of(opening, environ, self._journal)
        self._witness = Onlooker(
            opening.run,
            opening.job_id,
            self._scheduler,
            wakeups,
            self._journal,
            cleanup=timing.cleanup,
            cluster=present_cluster(environ),
        )
        self._between = Between(
            opening.run, self._scheduler, wakeups, self._journal, look=timing.look
        )

    def loop(self) -> int:
        """The attempts, one after the other; returns the run's exit code."""
        over = why_over(self._run, self._opening)
        if over is not None:
            self._journal.say(f"{self._run.run_id}: {over}: nothing is started")
            return int(ExitCode.OK)
        self._between.hear(self._scheduler.begin())
        while True:
            try:
                claim = claim_next(
                    self._run, self._wanted(), self._witness, self._timing.patience, fits=self._fits
                )
            except Interrupted as interrupted:
                return self._leave_unclaimed(interrupted.number)
            if claim is None:
                return int(ExitCode.OK)
            lease = Lease(self._run, claim, self._fence, self._timing.patience, self._journal)
            lease.try_beat()  # before anything that takes time: others see only the heartbeat
            self._scheduler.claimed()
            outcome = self._attempt(claim, lease)
            if outcome is None:  # the run is another's now
                return int(ExitCode.OK)
            conclusion, decision = outcome
            if decision.action is Action.REQUEUE:
                return self._leave(claim, conclusion, decision, lease)
            if decision.action is not Action.RESTART:
                return self._finish(decision)
            self._between.back_off(claim, decision.delay, lease)

    def _attempt(self, claim: Claim, lease: Lease) -> tuple[Conclusion, Decision] | None:
        """Runs a claimed attempt and writes its end; None if it lost the run meanwhile."""
        own = self._run.attempt(claim.attempt)
        self._journal.open(own.supervisor_log)
        ballast = Ballast(own.ballast)
        ballast.load()
        resumed = f"from {claim.resume_from}" if claim.resume_from else "from the start"
        self._journal.say(
            f"attempt {claim.attempt} of {self._run.run_id}: {claim.ranks} "
            f"rank{'s' * (claim.ranks != 1)}, {resumed}"
        )
        self._journal.note(f"launch line: {msgspec.json.encode(claim.argv).decode()}")
        try:
            lease.try_beat()
            pack_old_attempts(self._run, claim.attempt, self._journal, lease.try_beat)
            history = self._history(claim)
            refusal = refuse(history, budgets(self._plan))
            if refusal is not None:
                why = f"not started: {refusal.reason}"
                conclusion: Conclusion | None = Conclusion(history[-1].cause, why)
            else:
                conclusion = self._launch_and_watch(claim, lease)
            if conclusion is None:
                return None
            ballast.drop()
            if refusal is None and conclusion.cause is Cause.NAN and conclusion.stop is not None:
                conclusion = conclusion.of(self._prevailing(claim, conclusion, conclusion.stop))
            decision = self._end(claim, conclusion, refusal or self._decide(claim, conclusion))
            return None if decision is None else (conclusion, decision)
        finally:
            ballast.drop()
            self._journal.close()

    def _launch_and_watch(self, claim: Claim, lease: Lease) -> Conclusion | None:
        stop = self._between.stop(claim)
        if stop is not None:
            self._journal.say(f"{stop.reason}: the ranks are not started")
            why = f"{stop.reason}, before the ranks were started"
            return Conclusion(stop.cause, why, stop=stop, word=self._scheduler.ask())
        train = self._plan.spec.train is not None
        saves = saves_before(self._run, claim.attempt, train=train)
        try:
            lease.try_beat()  # what came before may have taken time
            launcher = self._start(claim)
        except OSError as error:
            why = f"{claim.argv[0]} can't be started: {error}"
            return Conclusion(Cause.CRASH, why, unlaunched=True)
        memory_before = oom_kills()
        session = Session(
            self._run,
            self._plan,
            claim,
            launcher,
            wakeups=self._wakeups,
            journal=self._journal,
            timing=self._timing,
            lease=lease,
            scheduler=self._scheduler,
            expected_save=expected_save(saves),
        )
        try:
            self._fence.guard(self._run, claim.attempt, launcher)
            session.run()
        finally:
            killed = launcher.end() or launcher.signal is not None
            if killed and not session.superseded:
                # A killed launcher ends nothing on other hosts. Steps of a run that is another's
                # by now may be that one's: this process slept, or was cut off.
                self._scheduler.end_steps(wait=not session.lost_a_host, beat=lease.try_beat)
            left = end_what_is_left(
                self._run,
                claim.attempt,
                within=self._timing.cleanup,
                after=0.0 if killed else self._timing.look,
            )
            self._fence.release()
            launcher.close()
            if self._plan.session_variable is not None:
                environ = rank_environment(self._environ, self._plan, self._run, claim.attempt)
                remove_own_folder(environ, self._run, claim.attempt)
        if left:
            what = "1 process" if left == 1 else f"{left} processes"
            self._journal.say(f"killed: {what} that outlived the launcher")
        if session.superseded:
            return None
        lease.try_beat()  # Slurm is asked about lost nodes next, and may be silent
        memory_after = oom_kills()
        grew = None not in (memory_before, memory_after) and memory_after != memory_before
        return conclude(session, self._plan, launcher, self._scheduler, killed_for_memory=grew)

    def _start(self, claim: Claim) -> Launcher:
        own = self._run.attempt(claim.attempt)
        if self._plan.hostfile is not None:
            files.commit_new(own.hostfile, self._plan.hostfile.encode())
        if self._rank_table is not None:
            files.commit_new(own.rank_table, self._rank_table.encode())
        if self._plan.spec.launcher_output == "files":
            files.make_private_dir(own.launcher)  # Hydra makes none
        environ = rank_environment(self._environ, self._plan, self._run, claim.attempt)
        place = make_own_folder(environ, self._plan, self._run, claim.attempt, claim.argv)
        return Launcher(
            claim.argv,
            {**place, **{name: environ[name] for name in environ if name not in place}},
            self._plan.directory,
            direct=not self._plan.mpirun and claim.ranks == 1,
        )

    def _prevailing(self, claim: Claim, found: Conclusion, stop: Stop) -> Cause:
        ended, history = self._ended(claim, found), self._history(claim)
        return prevailing(ended, history, stop.cause, rollback=rolls_back(self._plan))

    def _ended(self, claim: Claim, found: Conclusion) -> Ended:
        return Ended(
            found.cause,
            position(self._plan, claim, found.last_step),
            found.error,
            found.signal,
            resumed=claim.resume_step,
            unlaunched=found.unlaunched,
        )

    def _history(self, claim: Claim) -> list[Ended]:
        return ended_before(self._run, claim, self._plan, self._scheduler.cause_of_kill)

    def _decide(self, claim: Claim, found: Conclusion) -> Decision:
        return decide(
            self._ended(claim, found),
            self._history(claim),
            budgets(self._plan),
            can_requeue=self._scheduler.can_queue_again(found.cause),
            requeued=found.word.requeued,
            space_seen=room_again(self._run),
            asked=found.stop is not None,
            now=found.stop is not None and found.stop.now,
            superseded=found.stop is not None and found.stop.superseded,
            rollback=rolls_back(self._plan),
        )

    def _end(self, claim: Claim, found: Conclusion, decision: Decision) -> Decision | None:
        """Records how it ended and what follows; None if the run was lost meanwhile."""
        end = found.record(claim.attempt, will_restart=decision.action is not Action.END)
        try:
            if not write_end(self._run, end):  # we slept; what follows is not ours to decide
                self._journal.say(
                    f"attempt {claim.attempt + 1} was claimed by another process: this one ends"
                )
                return None
        except OSError as error:  # readers take a missing end for a kill, which is what it was
            self._journal.say(f"the end of attempt {claim.attempt} can't be written: {error}")
        if found.error:
            self._journal.say(found.error)
        self._journal.say(f"attempt {claim.attempt} ended: {found.cause}; {decision.reason}")
        return decision

    def _finish(self, decision: Decision) -> int:
        if decision.action is Action.END:
            event = "give-up" if decision.exit_code == ExitCode.FAILED else "end"
            self._notify(event, decision.state)
        return int(decision.exit_code)

    def _leave_unclaimed(self, number: int) -> int:
        """A notice while an earlier holder was waited for."""
        cause = self._scheduler.meaning(number)
        resumable = cause in (Cause.PREEMPTED, Cause.TIME_LIMIT)
        if resumable and self._scheduler.can_queue_again(cause):
            Departure(self._scheduler, self._wakeups, self._journal).leave(cause, ())
        return int(ExitCode.STOPPED)

    def _leave(self, claim: Claim, found: Conclusion, decision: Decision, lease: Lease) -> int:
        """Has the job queued again, and waits to be killed for it."""
        self._notify("requeue", State.QUEUED)
        departure = Departure(
            self._scheduler,
            self._wakeups,
            self._journal,
            lease,
            followed=lambda: is_superseded(self._run, claim),
        )
        if not departure.leave(found.cause, found.lost):
            self._notify("end", decision.state)
        return int(decision.exit_code)

    def _notify(self, event: str, state: State) -> None:
        notify(self._plan.spec.notify, self._run.run_id, event, state, self._journal)

    def _wanted(self) -> Wanted:
        return Wanted(
            submission=self._opening.submission,
            key=self._opening.key,
            uid=os.getuid(),
            job_id=self._opening.job_id,
            restart_count=self._scheduler.restart_count,
            host=self._opening.me.host,
            boot_id=self._opening.me.boot_id,
            pid=self._opening.me.pid,
            pid_start=self._opening.me.start,
            hosts=self._plan.hosts,
            ranks=self._plan.ranks,
            argv_of=lambda attempt: launch_argv(self._opening.argv, self._plan, self._run, attempt),
        )
