"""Stopping a run: by asking its supervisor, or by ending its processes or its job.

The request is written before anything is signalled, and it stays: a run whose processes are
gone without an end record is told from a killed one by it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

from clusterseg.cluster import processes
from clusterseg.cluster.local import claim_process, job_process
from clusterseg.cluster.look import look
from clusterseg.cluster.processes import ProcessId
from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.runs import files
from clusterseg.runs.control import StopReason, request_stop
from clusterseg.runs.paths import RunPaths, SubmissionPaths
from clusterseg.runs.records import State, StopRequest
from clusterseg.runs.snapshot import Snapshot, is_local_id, next_attempt_number
from clusterseg.runs.store import read_intent

LOOK = 0.5  # seconds between two looks
ORDERLY = 20.0  # seconds that a supervisor has to end its ranks after `cancel --now`
ORDERLY_IN_SLURM = 10.0  # the same, of a job that Slurm can end
SLURM_KILLS = 90.0  # seconds that Slurm has for it; its KillWait is 30 by default
AFTER_TERM = 5.0  # seconds between SIGTERM and SIGKILL
PASSES, BETWEEN = 5, 0.05  # over a session that is signalled; seconds


def ask_to_stop(snapshot: Snapshot, *, now: bool) -> None:
    """Writes the request where the live attempt, or the next one, will find it.

    What waits has nothing to save: a batch script that sets up is ended, a job that waits in
    Slurm's queue is cancelled. Raises ClustersegError if the request can't be written, or Slurm
    can't be asked.
    """
    reason = StopReason.CANCEL_NOW if now else StopReason.CANCEL
    for number in attempts_to_stop(snapshot):
        try:
            _write_request(snapshot.run, number, reason)
        except OSError as error:
            raise ClustersegError(
                f"{snapshot.run.stop_file(number)} can't be written: {error.strerror}",
                code="run-dir",
                exit_code=ExitCode.FAILED,
            ) from None
    if snapshot.verdict.state is not State.QUEUED:
        return
    if is_in_slurm(snapshot):
        _cancel_in_slurm(snapshot, "cancel_waiting")
    elif snapshot.job_id is not None:
        _end_batch_script(snapshot)
    elif snapshot.submission is not None:
        _take_its_turn(snapshot.submission)


def is_in_slurm(snapshot: Snapshot) -> bool:
    """Whether the run's last job is one of Slurm's."""
    if snapshot.job_id is not None:
        return not is_local_id(snapshot.job_id)
    intent = read_intent(snapshot.submission) if snapshot.submission else None
    return intent is not None and intent.scheduler == "slurm"


def attempts_to_stop(snapshot: Snapshot) -> list[int]:
    """The attempts whose stop files decide: the live or killed one, or the one to come."""
    attempt = snapshot.attempt
    if attempt is None:
        return [next_attempt_number(snapshot.run)]
    if attempt.end is None and snapshot.verdict.state is not State.QUEUED:
        return [attempt.number]
    # Between two attempts: if the next one never comes, the last one's file says why.
    restarting = attempt.end is not None and attempt.end.will_restart
    return [*([attempt.number] if restarting else []), attempt.number + 1]


def wait_until_stopped(asked: Snapshot, seconds: float, *, now: bool) -> Snapshot:
    """Looks at a run until it is over, or for so long; returns the last look.

    `asked` is the look at which it was asked to stop. An attempt that crashes or is requeued
    instead may be followed by another one, which then is asked, too.
    """
    end = time.monotonic() + seconds
    last = _what_is_asked(asked)
    while True:
        snapshot = look(asked.run)
        if snapshot.verdict.over or time.monotonic() >= end:
            return snapshot
        if not _what_is_asked(snapshot) <= last:
            ask_to_stop(snapshot, now=now)
            last |= _what_is_asked(snapshot)
        time.sleep(LOOK)


def _what_is_asked(snapshot: Snapshot) -> set[tuple[int, bool]]:
    """The attempts that `ask_to_stop` asks, and whether it takes them for waiting ones."""
    waits = snapshot.verdict.state is State.QUEUED
    return {(number, waits) for number in attempts_to_stop(snapshot)}


def end_processes(asked: Snapshot, say: Callable[[str], None]) -> Snapshot:
    """After a request to stop at once: waits, then ends what is left, surely; the last look.

    Only processes that are the run's own are signalled: its supervisor's session as long as
    that supervisor lives, and what carries the run directory in its environment. In Slurm, only
    jobs that carry its key are cancelled.
    """
    if is_in_slurm(asked):
        return _end_job(asked, say)
    snapshot = wait_until_stopped(asked, ORDERLY, now=True)
    if not snapshot.verdict.over:
        say(f"its supervisor did not end it within {ORDERLY:.0f} s: ending its processes")
        _signal_all(snapshot, signal.SIGTERM)
        snapshot = wait_until_stopped(snapshot, AFTER_TERM, now=True)
    if snapshot.verdict.over:
        # A killed supervisor leaves ranks; one that ended in order leaves nobody.
        _signal_ranks(snapshot, signal.SIGKILL)
        return snapshot
    _signal_all(snapshot, signal.SIGKILL)
    return wait_until_stopped(snapshot, AFTER_TERM, now=True)


def _end_job(asked: Snapshot, say: Callable[[str], None]) -> Snapshot:
    """A supervisor that lives ends its ranks at once, and says so in its record; else Slurm."""
    snapshot = wait_until_stopped(asked, ORDERLY_IN_SLURM, now=True)
    if not snapshot.verdict.over:
        say(f"its supervisor did not end it within {ORDERLY_IN_SLURM:.0f} s: cancelling its job")
        _cancel_in_slurm(snapshot, "cancel_all")
        snapshot = wait_until_stopped(snapshot, SLURM_KILLS, now=True)
    return snapshot


def _cancel_in_slurm(snapshot: Snapshot, what: Literal["cancel_waiting", "cancel_all"]) -> None:
    from clusterseg.submit import slurm_cancellation  # noqa: PLC0415 (only where Slurm is)

    try:
        getattr(slurm_cancellation, what)(snapshot.run)
    except ClustersegError as error:
        raise ClustersegError(
            f"{error.message}\n{snapshot.run.run_id} was asked to stop, and will do so as soon as "
            "it runs; its job is not cancelled",
            code=error.code,
            help=error.help,
            exit_code=error.exit_code,
        ) from None


def _write_request(run: RunPaths, attempt: int, reason: StopReason) -> None:
    stop_file = run.stop_file(attempt)
    try:
        request_stop(stop_file, reason)
    except FileNotFoundError:  # not claimed yet: the claim leaves the file as it is
        request = StopRequest(reason=reason, deadline=None)
        files.replace(stop_file, msgspec.json.encode(request) + b"\n")


def _end_batch_script(snapshot: Snapshot) -> None:
    """Before the claim there is nothing to save, and setup lines may take long."""
    supervisor = _supervisor(snapshot)
    if supervisor is not None:
        _signal_session(supervisor, signal.SIGTERM)


def _take_its_turn(submission: SubmissionPaths) -> None:
    """A sweep starts a run only if it is the first to write the job's id: nobody will now."""
    intent = read_intent(submission)
    if intent is None or intent.leader is None:
        return
    here = processes.this_process()
    nobody = processes.local_job_id(ProcessId(here.host, here.boot_id, 0, 0))
    with suppress(FileExistsError):  # started a moment ago: it sees the request
        files.commit_new(submission.job_id, f"{nobody}\n".encode())


def _signal_all(snapshot: Snapshot, number: int) -> None:
    supervisor = _supervisor(snapshot)
    if supervisor is not None:
        _signal_session(supervisor, number)
    _signal_ranks(snapshot, number)


def _signal_ranks(snapshot: Snapshot, number: int) -> None:
    if snapshot.attempt is None:
        return
    carried = {
        "CLUSTERSEG_RUN_DIR": str(snapshot.run.root),
        "CLUSTERSEG_ATTEMPT": str(snapshot.attempt.number),
    }
    for process in processes.processes_with_environment(carried):
        if not _is_ancestor(process.pid):
            processes.send_signal(process, number)


def _supervisor(snapshot: Snapshot) -> ProcessId | None:
    """The process that the job is: the batch script, later the supervisor."""
    attempt = snapshot.attempt
    if snapshot.verdict.state is State.RUNNING and attempt is not None and attempt.claim:
        return claim_process(attempt.claim)
    return job_process(snapshot.job_id) if snapshot.job_id else None


def _signal_session(leader: ProcessId, number: int) -> None:
    """Signals a leader that lives and the processes of its session, each one once.

    In passes, since any of them may have started another one just before it was signalled.
    """
    signalled: set[ProcessId] = set()
    if not processes.is_alive(leader):
        return  # the session's number may be in use again
    for _ in range(PASSES):
        found = set(_session(leader)) - signalled
        if not found:
            return
        for process in found:
            processes.send_signal(process, number)
        signalled |= found
        time.sleep(BETWEEN)


def _session(leader: ProcessId) -> list[ProcessId]:
    """The session of a leader that lived a moment ago.

    Nobody else can have made a session of this number as long as its pid is not in use again.
    """
    members = [process for pid in _pids() if (process := _member(pid, leader)) is not None]
    return members if processes.start_ticks(leader.pid) in (leader.start, None) else []


def _member(pid: int, leader: ProcessId) -> ProcessId | None:
    try:
        process = processes.process_id(pid)
        is_member = os.getsid(pid) == leader.pid and process.start >= leader.start
    except (OSError, ValueError):
        return None
    return process if is_member else None


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _is_ancestor(pid: int) -> bool:
    """Whether this process was started by `pid`: a job that cancels itself must end last."""
    current = os.getpid()
    while current > 1:
        if current == pid:
            return True
        try:
            stat = Path(f"/proc/{current}/stat").read_bytes()
        except OSError:
            return False
        current = int(stat[stat.rindex(b")") + 2 :].split()[1])
    return False
