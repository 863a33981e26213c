"""One run on the cluster while it lives: started, watched, hurt, and waited for."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clusterseg.runs.attempts import last_attempt
from clusterseg.runs.claims import read_claims
from clusterseg.runs.eventlog import iter_events
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Claim, Event, RankStart, Steps
from clusterseg.runs.store import iter_submissions, read_job_id
from tests.devcluster import DevCluster

LOOK = 0.3  # seconds between two looks
BETWEEN_QUESTIONS = 5.0  # seconds between two questions to Slurm


@dataclass
class Live:
    """A submitted run.

    `given_up`: nobody wants to know any more. `notes` are for whoever hurts it, to mend it again.
    """

    cluster: DevCluster
    runs: Path
    job_yaml: Path
    given_up: threading.Event = field(default_factory=threading.Event)
    notes: dict[str, Any] = field(default_factory=dict)
    _run: RunPaths | None = None

    def submit(self) -> None:
        said = json.loads(self.cli("submit", "--json", str(self.job_yaml)).stdout)
        self._run = RunPaths(Path(said["run_dir"]))

    def cli(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`clusterseg` as on the login node."""
        env = {"CLUSTERSEG_RUNS": str(self.runs)}
        return self.cluster.run("clusterseg", *words, env=env, check=check, timeout=400)

    @property
    def run(self) -> RunPaths:
        assert self._run is not None, "not submitted"
        return self._run

    @property
    def job(self) -> str:
        """The id of the run's last job."""
        job = read_job_id(iter_submissions(self.run)[-1])
        assert job is not None
        return job

    def claim(self) -> Claim:
        return read_claims(self.run)[-1]

    def events(self, attempt: int, rank: int = 0) -> list[Event]:
        path = self.run.attempt(attempt).events(rank)
        return list(iter_events(path)) if path.exists() else []

    def step(self, attempt: int) -> int:
        """The last step that rank 0 told of in an attempt; 0 before the first."""
        steps = [one.step for one in self.events(attempt) if isinstance(one, Steps)]
        return steps[-1] if steps else 0

    def rank_start(self, rank: int) -> RankStart:
        """Where a rank of the last attempt runs; the nodes share the machine's process ids."""
        found = [one for one in self.events(self.claim().attempt, rank) if _is_start(one)]
        assert isinstance(found[0], RankStart)
        return found[0]

    def hosts(self) -> list[str]:
        """The last attempt's nodes, the batch host first."""
        claim = self.claim()
        return [claim.host, *(host for host in claim.hosts if host != claim.host)]

    def wait(self, condition: Callable[[], object], what: str, seconds: float = 180) -> None:
        """Waits; gives up at once when the run's job is gone and the run is not over."""
        until = time.monotonic() + seconds
        looked, gone = time.monotonic(), 0
        while not condition():
            now = time.monotonic()
            assert not self.given_up.is_set(), f"given up while waiting until {what}"
            assert now < until, f"waited in vain until {what}\n{self.told()}"
            if now - looked > BETWEEN_QUESTIONS:
                looked = now
                gone = gone + 1 if self._is_lost() else 0
                assert gone < 3, f"no job is left to wait for until {what}\n{self.told()}"
            time.sleep(LOOK)

    def wait_for_step(self, step: int, attempt: int = 0) -> None:
        self.wait(lambda: self.step(attempt) >= step, f"step {step} of attempt {attempt}", 600)

    def wait_for_end(self, seconds: float = 900) -> None:
        """Until the run needs no more attempts, and Slurm has no job of it."""
        self.wait(self._is_over, "the run is over", seconds)
        self.wait(lambda: not self._in_queue(), "its job has left the queue", 60)

    def _is_over(self) -> bool:
        last = last_attempt(self.run)
        if last is None or last.claim is None or last.end is None or last.end.will_restart:
            return False
        return iter_submissions(self.run)[-1].number == last.claim.submission

    def _is_lost(self) -> bool:
        """Whether Slurm answers that there is no job, though one is needed."""
        done = self.cluster.run("squeue", "-h", "-o", "%i", check=False)
        return done.returncode == 0 and self.job not in done.stdout.split() and not self._is_over()

    def _in_queue(self) -> bool:
        done = self.cluster.run("squeue", "-h", "-o", "%i", check=False)
        return done.returncode == 0 and self.job in done.stdout.split()

    def told(self) -> str:
        """What a person would look at when it went wrong."""
        parts = [self.cluster.run("squeue", "-o", "%i %T %r %N %R", check=False).stdout]
        if self._run is None:
            return parts[0]
        parts.append(self.cli("status", self.run.run_id, check=False).stdout)
        for folder in sorted(self.run.attempts.glob("*")):
            for name in ("end.json", "supervisor.log", "ranks/00000.log"):
                if (folder / name).exists():
                    text = (folder / name).read_text(errors="replace")
                    parts.append(f"--- {folder.name}/{name}\n{text[-3000:]}")
        for submission in iter_submissions(self.run):
            if submission.output.exists():
                text = submission.output.read_text(errors="replace")
                parts.append(f"--- output of submission {submission.number}\n{text[-4000:]}")
        return "\n".join(parts)


def kill(pid: int, number: int) -> None:
    os.kill(pid, number)


def _is_start(event: Event) -> bool:
    return isinstance(event, RankStart)
