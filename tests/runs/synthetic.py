"""Run directories written by hand, for tests of what reads them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from clusterseg.cluster.processes import this_process
from clusterseg.runs import files, making
from clusterseg.runs.eventlog import EventWriter
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Cause, Claim, End, Event, Identity, Intent

# A process that is certainly not there: of this host and boot, with a start time of its own.
DEAD_PID = 1
PLAN = {"ranks": 2, "spec": {"train": {"epochs": 4, "steps_per_epoch": 100}}}


def make_run(
    root: Path, run_id: str, *, created: float = 1e9, plan: object = PLAN, started: bool = True
) -> RunPaths:
    """A run with one submission, whose job is dead if it was `started`."""
    run = RunPaths(root / run_id)
    name = run_id.partition("-")[0]
    identity = Identity(key="k", uid=os.getuid(), name=name, created=created)
    making.create_run(run, identity, submission_files(0, plan))
    if started:
        mark_started(run, 0)
    return run


def submission_files(number: int, plan: object = PLAN) -> making.SubmissionFiles:
    intent = Intent(
        t=1e9, key="k", submission=number, scheduler="local", host="n1", uid=os.getuid()
    )
    return making.SubmissionFiles("name: x\n", msgspec.json.encode(plan), "exit 1\n", intent)


def mark_started(run: RunPaths, number: int) -> None:
    me = this_process()
    job_id = f"local-{me.host}-{DEAD_PID}-0"
    files.commit_new(run.submission(number).job_id, job_id.encode())


def claim(
    run: RunPaths, number: int, *, submission: int = 0, ranks: int = 2, alive: bool = False
) -> None:
    """Attempt `number`, held by this process or by a dead one."""
    me = this_process()
    record = Claim(
        t=1e9 + 100 * number,
        attempt=number,
        submission=submission,
        key="k",
        uid=os.getuid(),
        job_id=f"local-{me.host}-{DEAD_PID}-0",
        host=me.host,
        boot_id=me.boot_id,
        pid=me.pid if alive else DEAD_PID,
        pid_start=me.start if alive else 0,
        nonce="n",
        hosts={"n1": ranks},
        ranks=ranks,
        argv=[],
    )
    paths = run.attempt(number)
    files.make_private_dir(paths.ranks)
    files.make_private_dir(run.control)
    files.make_empty(run.stop_file(number))
    files.commit_new(paths.claim, msgspec.json.encode(record))


def end(
    run: RunPaths,
    number: int,
    cause: Cause,
    *,
    error: str | None = None,
    will_restart: bool = False,
) -> None:
    record = End(
        t=1e9 + 100 * number + 60,
        attempt=number,
        cause=cause,
        error=error,
        will_restart=will_restart,
    )
    files.commit_new(run.attempt(number).end, msgspec.json.encode(record))


def write_events(run: RunPaths, attempt: int, rank: int, events: Iterable[Event]) -> None:
    with EventWriter(run.attempt(attempt).events(rank)) as writer:
        for event in events:
            writer.write(event)
