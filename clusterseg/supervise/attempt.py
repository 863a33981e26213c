"""`clusterseg attempt`: claim, run the launch line, write how it ended, restart within budget.

The loop of design: one claim a launch of the ranks. What decides stands in `policy`, what
watches in `session`; here the two are tied to the run directory.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from clusterseg.cluster.processes import oom_kills
from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.runs import files
from clusterseg.runs.claims import Wanted, claim_next, write_end
from clusterseg.runs.control import StopReason, read_stop
from clusterseg.runs.heartbeat import HeartbeatWriter
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Cause, Claim, End
from clusterseg.supervise.conclude import Conclusion, conclude
from clusterseg.supervise.history import budgets, ended_before, is_done, position
from clusterseg.supervise.journal import Journal
from clusterseg.supervise.launch import Launcher, end_what_is_left, launch_argv, rank_environment
from clusterseg.supervise.limits import Timing
from clusterseg.supervise.notify import notify
from clusterseg.supervise.opening import Opening, open_run
from clusterseg.supervise.packing import pack_old_attempts
from clusterseg.supervise.policy import (
    Action,
    Decision,
    Ended,
    cause_of_request,
    cause_of_signal,
    decide,
)
from clusterseg.supervise.session import Session, Stop
from clusterseg.supervise.signals import Wakeups
from clusterseg.supervise.witness import Interrupted, LocalWitness

_ENOUGH_SPACE = 64 << 20  # bytes free that count as "there is space again"


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
            return _Supervisor(open_run(run), argv, environ, timing or Timing(), wakeups).loop()
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
        argv: Sequence[str],
        environ: Mapping[str, str],
        timing: Timing,
        wakeups: Wakeups,
    ) -> None:
        self._opening, self._run, self._plan = opening, opening.run, opening.plan
        self._argv = tuple(argv) or opening.plan.argv
        self._environ, self._timing, self._wakeups = environ, timing, wakeups
        self._journal = Journal()
        self._witness = LocalWitness(opening.run, wakeups, self._journal, cleanup=timing.cleanup)
        self._stop: Stop | None = None  # asked for while no ranks ran
        limit = opening.plan.time_limit
        self._end_of_time = None if limit is None else time.monotonic() + limit

    def loop(self) -> int:
        if is_done(self._run, self._opening.submission):
            self._journal.say(f"{self._run.run_id} is done already: nothing is started")
            return int(ExitCode.OK)
        while True:
            try:
                claim = claim_next(self._run, self._wanted(), self._witness, self._timing.patience)
            except Interrupted:
                return int(ExitCode.STOPPED)
            if claim is None:
                return int(ExitCode.OK)
            heartbeat = HeartbeatWriter(self._run.attempt(claim.attempt).heartbeat)
            decision = self._attempt(claim, heartbeat)
            if decision is None:  # the run is another's now
                return int(ExitCode.OK)
            if decision.action is not Action.RESTART:
                event = "give-up" if decision.exit_code == ExitCode.FAILED else "end"
                argv = self._plan.spec.notify
                notify(argv, self._run.run_id, event, decision.state, self._journal)
                return int(decision.exit_code)
            self._back_off(claim, decision.delay, heartbeat)

    def _attempt(self, claim: Claim, heartbeat: HeartbeatWriter) -> Decision | None:
        """Runs a claimed attempt and writes its end; None if it lost the run meanwhile."""
        own = self._run.attempt(claim.attempt)
        self._journal.open(own.supervisor_log)
        resumed = f"from {claim.resume_from}" if claim.resume_from else "from the start"
        self._journal.say(
            f"attempt {claim.attempt} of {self._run.run_id}: {claim.ranks} ranks, {resumed}"
        )
        self._journal.note(f"launch line: {msgspec.json.encode(claim.argv).decode()}")
        try:
            with suppress(OSError):  # the session tries again, and gives up in time
                heartbeat.beat()
            pack_old_attempts(self._run, claim.attempt, self._journal)
            conclusion = self._launch_and_watch(claim, heartbeat)
            return None if conclusion is None else self._end(claim, conclusion)
        finally:
            self._journal.close()

    def _launch_and_watch(self, claim: Claim, heartbeat: HeartbeatWriter) -> Conclusion | None:
        stop = self._stop or self._requested_stop(claim) or self._out_of_time()
        if stop is not None:
            self._journal.say(f"{stop.reason}: the ranks are not started")
            return Conclusion(
                stop.cause, f"{stop.reason}, before the ranks were started", stop=stop
            )
        try:
            launcher = self._start(claim)
        except OSError as error:
            return Conclusion(Cause.CRASH, f"{claim.argv[0]} can't be started: {error}")
        memory_before = oom_kills()
        session = Session(
            self._run,
            self._plan,
            claim,
            launcher,
            wakeups=self._wakeups,
            journal=self._journal,
            timing=self._timing,
            heartbeat=heartbeat,
            end_of_time=self._end_of_time,
        )
        try:
            session.run()
        finally:
            launcher.end()  # an error of ours must not leave ranks behind
            left = end_what_is_left(self._run, claim.attempt, within=self._timing.cleanup)
            launcher.close()
        if left:
            self._journal.say(f"{left} processes outlived the launcher and were killed")
        if session.superseded:
            return None
        memory_after = oom_kills()
        grew = None not in (memory_before, memory_after) and memory_after != memory_before
        return conclude(session, self._plan, launcher, killed_for_memory=grew)

    def _start(self, claim: Claim) -> Launcher:
        own = self._run.attempt(claim.attempt)
        if self._plan.hostfile is not None:
            files.commit_new(own.hostfile, self._plan.hostfile.encode())
        return Launcher(
            claim.argv,
            rank_environment(self._environ, self._plan, self._run, claim.attempt),
            self._plan.directory,
            direct=not self._plan.mpirun,
        )

    def _end(self, claim: Claim, found: Conclusion) -> Decision | None:
        """Decides what follows, and records both; None if the run was lost meanwhile."""
        cancelled_now = found.stop is not None and found.stop.now
        decision = decide(
            Ended(
                found.cause,
                position(self._plan, claim, found.last_step),
                found.error,
                found.signal,
            ),
            ended_before(self._run, claim, self._plan),
            budgets(self._plan),
            space_seen=shutil.disk_usage(self._run.root).free >= _ENOUGH_SPACE,
            asked=found.stop is not None,
            now=cancelled_now,
        )
        end = End(
            t=time.time(),
            attempt=claim.attempt,
            cause=found.cause,
            exit_code=found.exit_code,
            signal=found.signal,
            failed_rank=found.failed_rank,
            failed_host=found.failed_host,
            error=found.error,
            first_step=found.first_step,
            last_step=found.last_step,
            will_restart=decision.action is not Action.END,
        )
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

    def _wanted(self) -> Wanted:
        return Wanted(
            submission=self._opening.submission,
            key=self._opening.identity.key,
            uid=os.getuid(),
            job_id=self._opening.job_id,
            restart_count=0,  # only a scheduler restarts jobs
            host=self._opening.me.host,
            boot_id=self._opening.me.boot_id,
            pid=self._opening.me.pid,
            pid_start=self._opening.me.start,
            hosts=self._plan.hosts,
            ranks=self._plan.ranks,
            argv_of=lambda attempt: launch_argv(self._argv, self._plan, self._run, attempt),
        )

    def _requested_stop(self, claim: Claim) -> Stop | None:
        """A request that was already there when the attempt was claimed."""
        request = read_stop(self._run.stop_file(claim.attempt))
        if request is None:
            return None
        now = request.reason == StopReason.CANCEL_NOW
        return Stop(cause_of_request(request.reason), f"stop file: {request.reason}", 0.0, now)

    def _out_of_time(self) -> Stop | None:
        if self._end_of_time is None or time.monotonic() < self._end_of_time:
            return None
        return Stop(Cause.TIME_LIMIT, "the time limit is reached", 0.0)

    def _back_off(self, claim: Claim, seconds: float, heartbeat: HeartbeatWriter) -> None:
        """Waits before the next attempt, alive for all to see; a request to stop ends it."""
        self._journal.say(f"next attempt in {seconds:.0f} s")
        until = time.monotonic() + seconds
        known = read_stop(self._run.stop_file(claim.attempt))
        while self._stop is None and (rest := until - time.monotonic()) > 0:
            self._wakeups.wait(min(rest, self._timing.look))
            for number in self._wakeups.take():
                left = None if self._end_of_time is None else self._end_of_time - time.monotonic()
                reason = f"{signal.Signals(number).name} at the supervisor"
                self._stop = Stop(cause_of_signal(number, left), reason, 0.0)
            request = read_stop(self._run.stop_file(claim.attempt))
            if request is not None and request != known:
                self._stop = self._requested_stop(claim)
            with suppress(OSError):
                heartbeat.beat()
