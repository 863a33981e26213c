"""A claimer and its world for tests; light, since some start it in processes of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from clusterseg.runs import files
from clusterseg.runs.claims import Patience, Wanted, claim_next
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Claim

QUICK = Patience(interval=0.05, grace=0.4, look=0.02)


def wanted(job: str = "job-1", pid: int = 100, submission: int = 0) -> Wanted:
    return Wanted(
        submission=submission,
        key="key",
        uid=os.getuid(),
        job_id=job,
        restart_count=0,
        host="n1",
        boot_id="boot",
        pid=pid,
        pid_start=1,
        hosts={"n1": 2},
        ranks=2,
        argv_of=lambda attempt: ("mpirun", f"attempt-{attempt}"),
    )


@dataclass
class World:
    """Answers as it was told to; `on_pause` is called at every look at the old holder."""

    process: bool | None = None
    job: bool | None = None
    on_pause: Callable[[], None] = lambda: None
    said: list[str] = field(default_factory=list)
    cleaned: list[int] = field(default_factory=list)
    pauses: int = 0

    def process_lives(self, claim: Claim) -> bool | None:
        return self.process

    def job_lives(self, claim: Claim) -> bool | None:
        return self.job

    def clean_up(self, claim: Claim) -> None:
        self.cleaned.append(claim.attempt)

    def pause(self, seconds: float) -> None:
        self.pauses += 1
        self.on_pause()
        time.sleep(seconds)

    def say(self, message: str) -> None:
        self.said.append(message)


def claim_once(root: Path) -> None:
    """Claims the next attempt, with temporary names that a tracer can know beforehand."""
    request = wanted()
    files.os.getpid = lambda: 1  # type: ignore[attr-defined]
    files.os.urandom = bytes  # type: ignore[assignment]
    claim_next(RunPaths(root), request, World(), QUICK)
