"""What an attempt that is over has been: evidence gathered, cause and culprit named."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path

from clusterseg.plan.model import Plan
from clusterseg.runs.records import Cause, End
from clusterseg.runs.space import is_full
from clusterseg.runs.text import last_lines, signal_name
from clusterseg.supervise.causes import Evidence, classify
from clusterseg.supervise.failure import (
    SHOWN_LINES,
    Failure,
    describe,
    first_failure,
)
from clusterseg.supervise.launch import Launcher
from clusterseg.supervise.reports import (
    cause_printed,
    launcher_reports,
    launchers_words,
    lost_hosts,
    who_aborted,
)
from clusterseg.supervise.scheduler import Scheduler
from clusterseg.supervise.session import Session
from clusterseg.supervise.slurm_job import NO_WORD, Word, true_cause
from clusterseg.supervise.stopping import Stop

_FAILED = frozenset(
    {
        Cause.CRASH,
        Cause.HANG,
        Cause.NODE_FAIL,
        Cause.OUT_OF_MEMORY,
        Cause.NAN,
        Cause.DISK_FULL,
    }
)


@dataclass(frozen=True)
class Conclusion:
    """How an attempt ended, for its end record. `stop` is the one that was asked for.

    `unlaunched`: it ended without a rank, or because they were not where they should be.
    """

    cause: Cause
    error: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    failed_rank: int | None = None
    failed_host: str | None = None
    first_step: int | None = None
    last_step: int | None = None
    stop: Stop | None = None
    word: Word = NO_WORD
    lost: tuple[str, ...] = ()
    unlaunched: bool = False

    def of(self, cause: Cause) -> Conclusion:
        """The same, ended for `cause`; no rank is to blame for one that is no failure."""
        if cause is self.cause:
            return self
        failed = cause in _FAILED
        rank, host = (self.failed_rank, self.failed_host) if failed else (None, None)
        return replace(self, cause=cause, failed_rank=rank, failed_host=host)

    def record(self, attempt: int, *, will_restart: bool) -> End:
        """The end record of this attempt."""
        return End(
            t=time.time(),
            attempt=attempt,
            cause=self.cause,
            exit_code=self.exit_code,
            signal=self.signal,
            failed_rank=self.failed_rank,
            failed_host=self.failed_host,
            error=self.error,
            first_step=self.first_step,
            last_step=self.last_step,
            will_restart=will_restart,
        )


def conclude(
    session: Session,
    plan: Plan,
    launcher: Launcher,
    scheduler: Scheduler,
    *,
    killed_for_memory: bool,
) -> Conclusion:
    """Reads the ranks' last events and lines, asks the scheduler, says why the attempt ended."""
    watch, train = session.watch, plan.spec.train is not None
    watch.look_at_all(time.monotonic())
    facts = watch.facts()
    lines = list(launcher.lines)
    failure = _first_failure(session, lines, launcher.exit_code)
    own = []
    if failure.rank is not None and failure.rank < len(facts):
        own = last_lines(watch.paths.log(failure.rank), SHOWN_LINES)
    # One that was killed had nothing to say.
    no_room = failure.signal is None and is_full(watch.paths.folder)
    shown = classify(
        Evidence(
            exit_code=launcher.exit_code,
            ranks=len(facts),
            asked=session.stop.cause if session.stop else None,
            forced=session.forced.cause if session.forced else None,
            reports_ends=train,
            statuses=tuple(one.end.status for one in facts if one.end is not None),
            error=failure.error,
            log_tail=(*own, *lines),
            killed_for_memory=killed_for_memory,
            no_room=no_room,
        )
    )
    word, lost = _ask(scheduler, shown, session, lines)
    unasked = session.stop is None and not train
    cause = true_cause(shown, word, lost, cause_printed(lines), unasked=unasked)
    failed = cause in _FAILED
    unsaid = None
    if cause is Cause.DISK_FULL and no_room and failure.error is None:
        what = f"disk full: {watch.paths.folder} takes no more, not even all that ranks say"
        unsaid = _with_lines(what, failure, own, lines)
    return Conclusion(
        cause=cause,
        error=unsaid
        or _error(session, launcher, failure, own, cause=cause, lost=lost, train=train),
        exit_code=launcher.exit_code,
        signal=(failure.signal if failed else None) or launcher.signal,
        failed_rank=failure.rank if failed and not lost else None,
        failed_host=lost[0] if lost and failed else failure.host if failed else None,
        first_step=watch.first_step,
        last_step=watch.last_step,
        stop=session.stop,
        word=word,
        lost=lost,
        unlaunched=_is_unlaunched(session, launcher),
    )


def _is_unlaunched(session: Session, launcher: Launcher) -> bool:
    if session.forced is not None:
        return session.forced.misplaced
    ended_badly = launcher.exit_code not in (None, 0)  # None: a signal, from outside
    return ended_badly and not session.watch.starts()


def _first_failure(session: Session, lines: list[str], exit_code: int | None) -> Failure:
    watch, forced = session.watch, session.forced
    if forced is not None and forced.rank is not None:
        start = watch.ranks[forced.rank].start
        return Failure(rank=forced.rank, host=start.host if start else None)
    reports = launcher_reports(lines)
    failure = first_failure(watch.facts(), reports)
    # A launcher that is told to abort kills all, and the one that told it may be the first to go.
    if failure == Failure() or failure.signal == signal.SIGKILL:
        said = {rank.rank: _last_words(watch.paths.log(rank.rank)) for rank in watch.ranks}
        aborted = who_aborted(said)
        if aborted is not None and aborted.rank is not None and aborted.exit_code == exit_code:
            start = watch.ranks[aborted.rank].start
            host = start.host if start else None
            return Failure(rank=aborted.rank, host=host, exit_code=exit_code)
    if reports or failure.rank is None or watch.ranks[failure.rank].last_t is not None:
        return failure
    # The one rank there should have been, or one that never came to write an event.
    wrote = last_lines(watch.paths.log(failure.rank), 1)
    return failure if wrote else Failure()


def _last_words(log: Path) -> list[str]:
    """Few, since those of all ranks may be read."""
    return last_lines(log, 5, window=2048)


def _ask(
    scheduler: Scheduler, shown: Cause, session: Session, lines: list[str]
) -> tuple[Word, tuple[str, ...]]:
    """The scheduler's word, where it could change anything, and the hosts that are gone."""
    if shown in (Cause.DONE, Cause.CANCELLED) or session.superseded:
        return NO_WORD, ()
    word = scheduler.ask()
    # A job that Slurm has queued again may have been preempted, or have lost a node.
    if shown not in (Cause.CRASH, Cause.HANG, Cause.NODE_FAIL) and not word.requeued:
        return word, ()
    hosts = list(session.hosts)
    lost = scheduler.lost_hosts(hosts) if len(hosts) > 1 else []
    named = [host for host in lost_hosts(lines) if host in hosts and shown is Cause.NODE_FAIL]
    return word, tuple(dict.fromkeys([*lost, *named]))


def _error(
    session: Session,
    launcher: Launcher,
    failure: Failure,
    own: list[str],
    *,
    cause: Cause,
    lost: tuple[str, ...],
    train: bool,
) -> str | None:
    lines = list(launcher.lines)
    if cause is Cause.NODE_FAIL and lost:
        what = f"{', '.join(lost)} {'is' if len(lost) == 1 else 'are'} lost"
        return describe(Failure(), [], lines, otherwise=what)
    if cause in _FAILED:
        if session.forced is not None:
            return _with_lines(session.forced.error, failure, own, lines)
        return describe(failure, own, lines, otherwise=_launcher_end(launcher, train=train))
    if cause is Cause.DONE or launcher.exit_code in (0, 75):
        return None
    if session.stop is not None:
        return session.stop.reason
    return f"{cause}, without a notice that reached the ranks in time"


def _with_lines(error: str, failure: Failure, own: list[str], lines: list[str]) -> str:
    """The supervisor's own finding first, since it is what `describe` can't know."""
    described = describe(failure, own, lines, otherwise=error)
    return "\n".join([error, *described.split("\n")[1:]])


def _launcher_end(launcher: Launcher, *, train: bool) -> str:
    if launcher.signal is not None:
        return (
            f"the launcher was killed by signal {launcher.signal} ({signal_name(launcher.signal)})"
        )
    if launcher.exit_code == 0 and train:
        return "the launcher ended well, but not every rank said that it is done"
    said = launchers_words(list(launcher.lines))
    return f"the launcher ended with exit code {launcher.exit_code}" + (f": {said}" if said else "")
