"""What is said when a command leaves a run: how it stands, and what to do next."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from clusterseg.cli.hints import Hint, live_hints, reference, show_hints
from clusterseg.cli.output import note, safe
from clusterseg.cluster.look import NOW_AND_THEN, Eyes, look
from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Cause, End, State
from clusterseg.runs.snapshot import Snapshot
from clusterseg.runs.store import is_lr_find
from clusterseg.runs.text import last_lines

if TYPE_CHECKING:
    from clusterseg.cluster.slurm.jobs import JobFacts

LOOK = 1.0  # seconds between two looks
HELD = 10.0  # seconds that a job is held before that is told: `submit` holds each for a moment
NEVER_STARTED = 10.0  # seconds that a client gets to start what it has written
NEVER_STARTED_SLURM = 60.0  # the same, where sbatch may have to be repeated
OUTPUT_LINES = 15
NEWLINE = "\n"


def next_hints(snapshot: Snapshot) -> list[Hint]:
    """Commands that make sense now, and what each is for."""
    run, verdict = reference(snapshot.run), snapshot.verdict
    collect = (f"clusterseg collect {run}", "accuracy and throughput")
    logs = (f"clusterseg logs {run}", "what the ranks printed")
    resume = (f"clusterseg resume {run}", "go on with it")
    if verdict.not_started:
        return [(f"clusterseg resume {run}", "start it")]
    if verdict.state is State.DONE and is_lr_find(snapshot.run):
        return [(f"clusterseg status {run}", "what it found"), logs]
    if verdict.state is State.DONE:
        return [collect, logs]
    if verdict.over and is_lr_find(snapshot.run):
        return [logs]  # begun anew by a run of its own
    if verdict.over:
        return [logs, resume, *([collect] if snapshot.attempt else [])]
    return live_hints(snapshot.run)


def advise(snapshot: Snapshot) -> None:
    """Shows the next commands on stderr."""
    show_hints(next_hints(snapshot))


def wait_for_end(run: RunPaths) -> Snapshot:
    """Looks at a run until nothing more will happen by itself."""
    eyes = Eyes(max_age=NOW_AND_THEN)
    patience = Patience(eyes)
    while True:
        snapshot = eyes.look(run)
        if patience.is_over(snapshot):
            return snapshot
        time.sleep(LOOK)


class Patience:
    """How long to stay with a run: until its end, or until nobody seems to start it.

    A job that is held is waited for, since a person will release it; `say` is told so once.
    """

    def __init__(self, eyes: Eyes, say: Callable[[str], None] = note) -> None:
        """`eyes` are those that look at the run."""
        self._eyes = eyes
        self._say = say
        self._since: float | None = None  # when it was first seen not to be started, or held
        self._has_said = False

    def is_over(self, snapshot: Snapshot) -> bool:
        """Whether nothing more will happen by itself; asked at each look."""
        job = self._eyes.job(snapshot) if snapshot.verdict.state is State.QUEUED else None
        is_held = job is not None and job.is_held
        if not snapshot.verdict.not_started and not is_held:
            self._since = None
            return snapshot.verdict.over
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        waited = now - self._since
        if job is not None and is_held:
            if waited >= HELD and not self._has_said:
                self._has_said = True
                self._say(_held_sentence(snapshot.run, job))
            return False
        is_local = snapshot.job is None or snapshot.job.is_local
        return waited > (NEVER_STARTED if is_local else NEVER_STARTED_SLURM)


def never_started(snapshot: Snapshot) -> ClustersegError:
    """What to say of a run whose submission nobody finishes."""
    return ClustersegError(
        end_sentence(snapshot),
        code="never-started",
        help=f"clusterseg resume {reference(snapshot.run)} starts it",
        exit_code=ExitCode.CLUSTER,
    )


def _held_sentence(run: RunPaths, job: JobFacts) -> str:
    from clusterseg.cluster.slurm.reasons import explain

    help = explain(job.reason).help.replace("RUN", reference(run)).replace("JOB", job.id)
    why = job.reason or job.state
    return f"{run.run_id} waits: job {job.id} is held in Slurm ({safe(why)})" + (
        f"; {help}" if help else ""
    )


def attend(run: RunPaths, *, follow: bool, quiet: bool) -> tuple[Snapshot, int]:
    """Stays with a run until its end, says how it ended; the last look, and the exit code.

    Ctrl-C only leaves it. `quiet`: stdout is kept for other data. With `follow`, the live view
    is shown meanwhile and the summary at the end.
    """
    try:
        if follow:
            from clusterseg.cli.follow import follow_run

            snapshot = follow_run(run, sys.stderr if quiet else sys.stdout)
        else:
            snapshot = wait_for_end(run)
    except KeyboardInterrupt:
        snapshot = look(run)
        note(f"\nleft {run.run_id}, which is {snapshot.verdict.state}")
        advise(snapshot)
        return snapshot, int(ExitCode.INTERRUPTED)
    if follow and not quiet and snapshot.attempt is not None:
        from clusterseg.cli.collect_commands import show_summary

        show_summary(run)
    return snapshot, tell_end(snapshot)


def tell_end(snapshot: Snapshot) -> int:
    """Says how a run ended, on stderr; returns the exit code for this command."""
    note(end_sentence(snapshot))
    for line in last_words(snapshot):
        note(f"  | {line}")
    advise(snapshot)
    code = snapshot.verdict.exit_code
    # None: its submission was not finished, and nobody does so.
    return int(ExitCode.CLUSTER) if code is None else code


def end_sentence(snapshot: Snapshot) -> str:
    """One line: the state, the cause, and what went wrong."""
    verdict, end = snapshot.verdict, _deciding_end(snapshot)
    text = f"{snapshot.run.run_id} is {verdict.state}"
    if verdict.cause not in (None, Cause.UNKNOWN) and verdict.cause != verdict.state.value:
        text += f" ({verdict.cause})"
    if verdict.note:
        text += f": {verdict.note}"
    if end is not None and end.error:
        text += f": {end.error.strip().partition(NEWLINE)[0]}"
    elif end is not None and end.failed_rank is not None:
        text += f": rank {end.failed_rank} on {end.failed_host or 'an unknown host'}"
    return safe(text)


def last_words(snapshot: Snapshot) -> list[str]:
    """Lines that the failed rank, or the batch script before any attempt, wrote last."""
    end = _deciding_end(snapshot)
    if end is not None and end.error:
        return [safe(line) for line in end.error.strip().split(NEWLINE)[1:]]
    return [] if snapshot.verdict.state is State.DONE else output_tail(snapshot)


def _deciding_end(snapshot: Snapshot) -> End | None:
    """The end of the last attempt if the verdict rests on it."""
    end = snapshot.attempt.end if snapshot.attempt else None
    return end if end is not None and end.cause == snapshot.verdict.cause else None


def output_tail(snapshot: Snapshot) -> list[str]:
    """The last lines of the batch script's own output, if no attempt was claimed after it."""
    submission, attempt = snapshot.submission, snapshot.attempt
    if submission is None:
        return []
    claimed = attempt is not None and (
        attempt.claim is None or attempt.claim.submission >= submission.number
    )
    return [] if claimed else last_lines(submission.output, OUTPUT_LINES)
