"""Run directories of Slurm jobs, written by hand: what a submission and a supervisor leave."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec

from clusterseg.runs import files, making
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Cause, Claim, End, Identity, Intent


def new_key() -> str:
    return os.urandom(16).hex()


def make_run(
    root: Path,
    name: str,
    *,
    key: str,
    job_id: str | None,
    age: float = 3600.0,
    task: int | None = None,
    uid: int | None = None,
    cluster: str | None = None,
) -> RunPaths:
    """A run that was submitted `age` seconds ago; `job_id` None: its id was not recorded."""
    run = RunPaths(root / name)
    then = time.time() - age
    intent = Intent(
        t=then,
        key=key,
        submission=0,
        scheduler="slurm",
        host="login",
        uid=os.getuid() if uid is None else uid,
        task=task,
        cluster=cluster,
    )
    identity = Identity(key=key, uid=os.getuid(), name=name.partition("-")[0], created=then)
    making.create_run(run, identity, making.SubmissionFiles("name: x\n", b"{}", "", intent))
    if job_id is not None:
        record(run, job_id, age=age)
    return run


def record(run: RunPaths, job_id: str, *, age: float = 3600.0) -> None:
    file = run.submission(0).job_id
    files.commit_new(file, f"{job_id}\n".encode())
    os.utime(file, (time.time() - age,) * 2)


def claim(
    run: RunPaths,
    number: int,
    *,
    key: str,
    job_id: str,
    t: float,
    uid: int | None = None,
    cluster: str | None = None,
) -> Claim:
    """An attempt claimed at `t` on another host than this one (a claim names no cluster)."""
    record = Claim(
        t=t,
        attempt=number,
        submission=0,
        key=key,
        uid=os.getuid() if uid is None else uid,
        job_id=job_id,
        host="n1",
        boot_id="another boot",
        pid=1,
        pid_start=1,
        nonce="n",
        hosts={"n1": 1},
        ranks=1,
        argv=[],
    )
    files.make_private_dir(run.attempt(number).folder)
    files.make_empty(run.stop_file(number))
    files.commit_new(run.attempt(number).claim, msgspec.json.encode(record))
    return record


def beat(run: RunPaths, number: int, *, count: int, t: float) -> None:
    run.attempt(number).heartbeat.write_text(f"{count:020d} {t:017.3f}\n")


def end(run: RunPaths, number: int, cause: Cause, *, will_restart: bool = False) -> None:
    ended = End(t=time.time(), attempt=number, cause=cause, will_restart=will_restart)
    files.commit_new(run.attempt(number).end, msgspec.json.encode(ended))
