"""A supervisor and its only rank in one process, with the product's own claims and checkpoints.

`python actor.py SETTINGS` (JSON): claims the next attempt as the host it is told to be, "trains"
(its weights are a hash over the steps and over who did them, so that a checkpoint proves its whole
descent), saves, prunes, beats, obeys the stop file. What it does it also writes into a journal
outside of the run, which no other process reads through a cache.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from clusterseg.cluster.processes import ProcessId, this_process
from clusterseg.runs import choice, claims, files, takeover
from clusterseg.runs.checkpoint_file import CheckpointError, Tensor, read_verified
from clusterseg.runs.checkpoints import checkpoint_name, commit_checkpoint, counting_checkpoints
from clusterseg.runs.claims import Patience, Wanted
from clusterseg.runs.control import read_stop
from clusterseg.runs.eventlog import EventWriter
from clusterseg.runs.heartbeat import HeartbeatWriter
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Cause, CheckpointHeader, Claim, End, RankStart, Steps
from clusterseg.spec.model import CheckpointSpec
from clusterseg.train.keep import to_delete

START = b"\0" * 32


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """`stop_at`: at which visit of which points it stops itself (SIGSTOP), for a test to wake it.

    `broken`: what this one does wrong, for the tests that must fail then. `job_lives`: what the
    scheduler says of other jobs. `deaf`: it never looks at its stop file. `crash_at`: the step
    at which its first attempt fails, to be followed by another one.
    """

    root: str
    journal: str
    host: str
    job: str
    restart_count: int = 0
    job_lives: bool | None = False
    goal: int = 40
    step_seconds: float = 0.1
    save_every: int = 5
    keep_last: int = 2
    patience: dict[str, float] = {}
    stop_at: dict[str, int] = {}
    broken: str | None = None
    deaf: bool = False
    crash_at: int | None = None


def next_state(state: bytes, nonce: str) -> bytes:
    """One step of "training" by the attempt with this nonce."""
    return hashlib.sha256(state + nonce.encode()).digest()


class Actor:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.run = RunPaths(Path(settings.root))
        self.patience = Patience(**settings.patience)
        self._journal = Path(settings.journal).open("a")  # noqa: SIM115 (as long as the process)
        self._visits: Counter[str] = Counter()
        self.beaten = 0.0

    # The `Witness` of claims: processes of this "host" can be seen, others not.

    def process_lives(self, claim: Claim) -> bool | None:
        if claim.host != self.settings.host:
            return None
        return ProcessId(claim.host, "", claim.pid, claim.pid_start).start == _start(claim.pid)

    def job_lives(self, claim: Claim) -> bool | None:
        return self.settings.job_lives

    def clean_up(self, claim: Claim) -> None: ...

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)

    def say(self, message: str) -> None:
        self.note("said", message=message)

    def note(self, what: str, **more: Any) -> None:
        line = {"t": time.monotonic(), "what": what, "host": self.settings.host, **more}
        self._journal.write(json.dumps(line) + "\n")
        self._journal.flush()

    def point(self, name: str) -> None:
        """Stops here if it was told to."""
        self._visits[name] += 1
        if self._visits[name] == self.settings.stop_at.get(name):
            self.note("paused", at=name)
            os.kill(os.getpid(), signal.SIGSTOP)
            self.note("woke", at=name)

    def wanted(self) -> Wanted:
        me = this_process()
        return Wanted(
            submission=0,
            key="key",
            uid=os.getuid(),
            job_id=self.settings.job,
            restart_count=self.settings.restart_count,
            host=self.settings.host,
            boot_id=self.settings.host,
            pid=me.pid,
            pid_start=me.start,
            hosts={self.settings.host: 1},
            ranks=1,
            argv_of=lambda attempt: ("rank",),
        )

    def main(self) -> str:
        """How it came out: done, stopped, duplicate, superseded."""
        while True:
            claim = claims.claim_next(self.run, self.wanted(), self, self.patience)
            if claim is None:
                return "duplicate"
            self.note("claimed", attempt=claim.attempt, nonce=claim.nonce, step=claim.resume_step)
            outcome, cause = self.attempt(claim)
            if outcome == "superseded":
                return outcome
            self.point("end")
            again = cause is Cause.CRASH
            end = End(t=time.time(), attempt=claim.attempt, cause=cause, will_restart=again)
            if not claims.write_end(self.run, end):
                return "superseded"
            self.note("ended", attempt=claim.attempt, cause=cause)
            if not again:
                return outcome

    def attempt(self, claim: Claim) -> tuple[str, Cause]:
        heartbeat = HeartbeatWriter(self.run.attempt(claim.attempt).heartbeat)
        heartbeat.beat()
        step, state, written = claim.resume_step, START, set(claim.accepted)
        self.point("restore")
        if claim.resume_from is not None:
            path = self.run.checkpoints / claim.resume_from
            _, data = read_verified(path, claim.accepted[claim.resume_from])
            state = bytes(data)
        with EventWriter(self.run.attempt(claim.attempt).events(0)) as events:
            events.write(
                RankStart(
                    t=time.time(), rank=0, attempt=claim.attempt, world_size=1,
                    host=self.settings.host, step=step, resumed_from=claim.resume_from,
                )
            )  # fmt: skip
            while step < self.settings.goal:
                time.sleep(self.settings.step_seconds)
                self.point("beat")
                if time.monotonic() - self.beaten >= self.patience.interval:
                    if self.lost(claim):
                        return "superseded", Cause.CRASH
                    heartbeat.beat()
                    self.beaten = time.monotonic()
                step, state = step + 1, next_state(state, claim.nonce)
                events.write(
                    Steps(
                        t=time.time(), rank=0, epoch=0, step=step, count=1, images=1,
                        seconds=self.settings.step_seconds,
                    )
                )  # fmt: skip
                asked = not self.settings.deaf and read_stop(self.run.stop_file(claim.attempt))
                if asked or step % self.settings.save_every == 0 or step == self.settings.goal:
                    try:
                        self.save(claim, step, state, written)
                    except CheckpointError as error:
                        self.note("refused", why=error.code)
                        return "superseded", Cause.CRASH
                    except FileNotFoundError:  # the next claimer removed its temporary file
                        self.note("refused", why="temporary file is gone")
                        return "superseded", Cause.CRASH
                if asked:
                    return "stopped", Cause.PREEMPTED
                if claim.attempt == 0 and step == self.settings.crash_at:
                    return "crashed", Cause.CRASH
        return "done", Cause.DONE

    def lost(self, claim: Claim) -> bool:
        if not claims.is_superseded(self.run, claim):
            return False
        self.note("superseded", attempt=claim.attempt)
        return True

    def save(self, claim: Claim, step: int, state: bytes, written: set[str]) -> None:
        """As `clusterseg.train.saving.Saver` does it."""
        self.point("save")
        files.make_private_dir(self.run.checkpoints)
        header = CheckpointHeader(
            epoch=0, step=step, step_in_epoch=step, attempt=claim.attempt, t=time.time()
        )
        info = commit_checkpoint(
            self.run.checkpoints,
            checkpoint_name(0, 0.0, step),
            header,
            [Tensor("state", "U8", (len(state),), memoryview(state))],
            accepted=claim.accepted,
            holds=lambda: not claims.is_superseded(self.run, claim),
        )
        written.add(info.name)
        self.note("saved", attempt=claim.attempt, step=step, file=info.name, sha256=info.sha256)
        self.point("prune")
        if not claims.may_prune(self.run, claim):
            self.note("spared", attempt=claim.attempt)
            return
        counting = counting_checkpoints(self.run, claim)
        self.point("listed")
        spec = CheckpointSpec(keep_last=self.settings.keep_last, keep_best=0)
        for name in to_delete(counting, spec, own=frozenset(written)):
            self.point("delete")
            (self.run.checkpoints / name).unlink(missing_ok=True)
            self.note("deleted", attempt=claim.attempt, file=name)


def _start(pid: int) -> int | None:
    from clusterseg.cluster.processes import start_ticks

    return start_ticks(pid)


def _stop_in_calls(actor: Actor) -> None:
    """Points inside the product: just before a link() that gives a claim or checkpoint its name."""
    real = os.link

    def link(source: Any, target: Any, **more: Any) -> None:
        actor.point("claim" if Path(target).name == "claim.json" else "commit")
        real(source, target, **more)

    os.link = link


def _break(what: str | None) -> None:
    """What the product does is undone, so that a test can show that it would notice."""

    def yes(*_: Any, **__: Any) -> bool:
        return True

    def no(*_: Any, **__: Any) -> bool:
        return False

    breaks: dict[str, Callable[[], None]] = {
        "prunes without asking": lambda: setattr(claims, "may_prune", yes),
        "never looks at claims": lambda: setattr(claims, "_is_claimed", no),
        "forgets that it held the run": lambda: setattr(takeover, "_held_before", no),
        "takes everything": lambda: setattr(choice, "counts", yes),
    }
    if what is not None:
        breaks[what]()


if __name__ == "__main__":
    actor = Actor(msgspec.json.decode(sys.argv[1], type=Settings))
    _break(actor.settings.broken)
    _stop_in_calls(actor)
    outcome = actor.main()
    actor.note("over", outcome=outcome)
