"""What a session tells its ranks of a stop, without any."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clusterseg.runs.control import read_stop, request_stop
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Cause
from clusterseg.supervise.limits import Timing
from clusterseg.supervise.session import Session
from clusterseg.supervise.signals import Wakeups


class Slurm:
    """Says after the notice, when it is asked, that there are 30 s left of an hour."""

    def __init__(self) -> None:
        self.end_of_time = time.monotonic() + 3600

    def hurries(self, number: int) -> bool:
        return False

    def guess(self, number: int) -> Cause:
        return Cause.PREEMPTED

    def meaning(self, number: int) -> Cause:
        self.end_of_time = time.monotonic() + 30
        return Cause.PREEMPTED


@pytest.fixture
def session(tmp_path: Path) -> Session:
    run = RunPaths(tmp_path)
    run.control.mkdir()
    run.stop_file(0).touch()
    silent: Any = SimpleNamespace(say=print, note=print)
    placement = SimpleNamespace(verify="off")
    plan: Any = SimpleNamespace(spec=SimpleNamespace(train=object(), placement=placement))
    claim: Any = SimpleNamespace(attempt=0, ranks=1, hosts={"h": 1})
    lease: Any = SimpleNamespace(keep=lambda urgent: None)
    nobody: Any = SimpleNamespace()
    slurm: Any = Slurm()
    return Session(
        run, plan, claim, nobody, wakeups=nobody, journal=silent, timing=Timing(), lease=lease,
        scheduler=slurm,
    )  # fmt: skip


def deadline(session: Session) -> tuple[str, float | None]:
    request = read_stop(session._stopping.file)
    assert request is not None
    left = None if request.deadline is None else request.deadline - time.time()
    return request.reason, left


def test_ranks_are_told_of_the_grace_time_when_the_scheduler_has_said_it(session: Session) -> None:
    session._on_signal(signal.SIGTERM)
    reason, left = deadline(session)
    assert reason == "preempted" and left is not None and 25 < left < 31
    session._stopping.look()  # its own word is no news to it
    assert session.stop is not None and session.stop.reason == "SIGTERM at the supervisor"


def test_the_request_of_somebody_else_is_left_as_it_is(session: Session) -> None:
    request_stop(session._stopping.file, "cancel")
    session._on_signal(signal.SIGTERM)
    assert deadline(session) == ("cancel", None)


@pytest.mark.parametrize(
    ("ended_by", "exit_code", "told", "cause"),
    [
        (signal.SIGTERM, None, True, Cause.PREEMPTED),
        (None, 128 + signal.SIGTERM, True, Cause.PREEMPTED),
        (signal.SIGTERM, None, False, None),
        (signal.SIGKILL, None, True, None),  # not one that all get: nobody waits for it
    ],
)
def test_ranks_that_term_ended_first_are_a_stop_if_the_supervisor_gets_it_too(
    session: Session, ended_by: int | None, exit_code: int | None, told: bool, cause: Cause | None
) -> None:
    """Slurm sends it to all processes of a job that it queues again."""
    over: Any = SimpleNamespace(
        ended=lambda: True, drain=list, signal=ended_by, exit_code=exit_code
    )
    session._launcher = over
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM))
    with Wakeups() as wakeups:
        session._wakeups = wakeups
        if told:
            timer.start()
        session.run()
        timer.join() if told else None
    assert (session.stop and session.stop.cause) == cause
