"""Starts actors on hosts, stops and wakes them, and says whether what is left is the truth."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from clusterseg.collect.summarize import collect
from clusterseg.runs.attempts import iter_attempts
from clusterseg.runs.checkpoint_file import read_verified
from clusterseg.runs.checkpoints import counting_checkpoints
from clusterseg.runs.claims import read_claims
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Cause, State
from tests.lease.actor import START, Settings, next_state

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Scale:
    """How stale the mounts are (seconds), and the patience that goes with it."""

    stale: float
    patience: dict[str, float]


# A sixth of what sites have, and as it is: `metadata_delay` + 15 s.
QUICK = Scale(5.0, {"interval": 0.5, "grace": 8.0, "look": 0.2})
REAL = Scale(30.0, {"interval": 5.0, "grace": 45.0, "look": 1.0})


@dataclass
class Stage:
    """One run on several hosts' mounts, and the actors on it."""

    mounts: list[Path]
    real: Path
    folder: Path
    scale: Scale
    name: str = "run"
    actors: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def run(self) -> RunPaths:
        """The run as it really is, past all caches."""
        return RunPaths(self.real / self.name)

    def start(self, host: int, job: str = "job-0", **settings: Any) -> subprocess.Popen[bytes]:
        """An actor on a host."""
        self.run.root.mkdir(exist_ok=True)
        what = Settings(
            root=str(self.mounts[host] / self.name),
            journal=str(self.folder / f"{self.name}-{len(self.actors)}.jsonl"),
            host=f"host{host}",
            job=job,
            patience=settings.pop("patience", self.scale.patience),
            **settings,
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.lease.actor", msgspec.json.encode(what).decode()],
            cwd=REPOSITORY,
        )
        self.actors.append(process)
        return process

    def journal(self, actor: int | None = None) -> list[dict[str, Any]]:
        """What an actor, or all of them, noted, in order of time."""
        numbers = range(len(self.actors)) if actor is None else [actor]
        lines = []
        for number in numbers:
            path = self.folder / f"{self.name}-{number}.jsonl"
            if path.exists():
                for line in path.read_text().splitlines():
                    lines.append({"actor": number, **json.loads(line)})
        return sorted(lines, key=lambda line: line["t"])

    def noted(self, what: str, actor: int | None = None, **more: Any) -> list[dict[str, Any]]:
        return [
            line
            for line in self.journal(actor)
            if line["what"] == what and all(line.get(key) == more[key] for key in more)
        ]

    def wait(self, condition: Callable[[], object], what: str, seconds: float = 0) -> None:
        until = time.monotonic() + (seconds or 60 + 6 * self.scale.patience["grace"])
        while not condition():
            assert time.monotonic() < until, f"waited in vain until {what}: {self.journal()}"
            time.sleep(0.05)

    def wait_until_noted(self, what: str, actor: int | None = None, **more: Any) -> None:
        self.wait(lambda: self.noted(what, actor, **more), f"{what} of {actor} {more}")

    def freeze(self, actor: int) -> None:
        os.kill(self.actors[actor].pid, signal.SIGSTOP)

    def wake(self, actor: int) -> None:
        os.kill(self.actors[actor].pid, signal.SIGCONT)

    def outcome(self, actor: int) -> str:
        """Waits for its end."""
        process = self.actors[actor]
        self.wait(lambda: process.poll() is not None, f"actor {actor} ends")
        over = self.noted("over", actor)
        return over[0]["outcome"] if over else f"exit code {process.returncode}"

    def end(self) -> None:
        for process in self.actors:
            process.kill()
            process.wait()


def check_truth(stage: Stage, goal: int) -> None:
    """Fails unless the run is one unbroken line of attempts that ends with `goal`.

    Every claim has one holder; it builds on a file that counted; the last checkpoint's weights
    are those of exactly the steps that count, each done once, each by the attempt it belongs to;
    no checkpoint that a claim counted on was lost but by the rules; nothing is unreadable.
    """
    run = stage.run
    claims = read_claims(run)
    assert [one.attempt for one in claims] == list(range(len(claims)))
    holders = {line["nonce"]: line["actor"] for line in stage.noted("claimed")}
    assert [one.nonce in holders for one in claims] == [True] * len(claims)
    assert len(stage.noted("claimed")) == len(claims), "somebody claimed what is not there"

    written = {(line["file"], line["sha256"]): line for line in stage.noted("saved")}
    state, step = START, 0
    for earlier, claim in pairwise(claims):
        for name, sha256 in claim.accepted.items():
            by = written[name, sha256]["attempt"]
            assert by == earlier.attempt or earlier.accepted.get(name) == sha256, (
                f"claim {claim.attempt} counts on {name}, which attempt {by} wrote after it had "
                "lost the run"
            )
        assert claim.resume_step >= step, "a later attempt went back behind an earlier one's start"
        for _ in range(step, claim.resume_step):
            state = next_state(state, earlier.nonce)
        step = claim.resume_step
    for _ in range(step, goal):
        state = next_state(state, claims[-1].nonce)

    last = counting_checkpoints(run, claims[-1])[-1]
    layout, data = read_verified(last.path)
    assert layout.header.step == goal
    assert layout.header.attempt == claims[-1].attempt
    assert bytes(data) == state, "the last weights are not those of the steps that count"
    for path in run.checkpoints.glob("*.safetensors"):
        read_verified(path)

    ends = {one.number: one.end for one in iter_attempts(run)}
    done = [number for number, end in ends.items() if end is not None and end.cause is Cause.DONE]
    assert done == [claims[-1].attempt], "an attempt that lost the run says that it is done"
    summary = collect(run, State.DONE).summary
    assert summary.steps.completed == goal, summary.steps
