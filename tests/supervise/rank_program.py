"""A rank that only writes events: steps of 50 ms, with faults where it is told to.

`--steps N`; `--fail KIND:RANK:STEP[:ATTEMPTS]` (exit3, tell3, error, full, brimful, kill, freeze;
only in the first ATTEMPTS attempts; tell3 says so by an event); `--deaf` ignores the stop file and
TERM; `--mute` writes no events at all; `--resume` saves every tenth step and at a stop, and goes on
from there; `--quiet` touches no file.
"""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

from clusterseg.runs.control import read_stop
from clusterseg.runs.eventlog import EventWriter
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import RankEnd, Steps, Stop

RANK = int(os.environ["CLUSTERSEG_RANK"])
ATTEMPT = int(os.environ["CLUSTERSEG_ATTEMPT"])
ROOT = Path(os.environ["CLUSTERSEG_RUN_DIR"])
WORLD = int(os.environ["CLUSTERSEG_WORLD_SIZE"])
terminated: list[int] = []


def on_term(number: int, frame: FrameType | None) -> None:
    terminated.append(number)


def save(step: int) -> None:
    new = ROOT / f"saved-{RANK}.new"
    new.write_text(str(step))
    new.replace(ROOT / f"saved-{RANK}")


def saved() -> int:
    """The step that all ranks have saved."""
    files = [ROOT / f"saved-{rank}" for rank in range(WORLD)]
    return min(int(file.read_text()) if file.exists() else 0 for file in files)


def fill() -> None:
    """The disk of the run, to the last byte."""
    with (ROOT.parent / "filler").open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            with suppress(OSError):
                while file.write(bytes(size)):
                    pass


def fail(kind: str) -> None:
    if kind == "exit3":
        sys.exit(3)
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "freeze":
        os.kill(os.getpid(), signal.SIGSTOP)
    if kind == "brimful":
        fill()
        sys.exit(1)  # nothing of it could be written
    if kind == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    raise ValueError("the moon is full")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--fail", default="")
    parser.add_argument("--deaf", action="store_true")
    parser.add_argument("--mute", action="store_true")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--quiet", action="store_true")
    options = parser.parse_args()
    if options.quiet:
        time.sleep(0.05 * options.steps)
        return
    kind, rank, at, attempts = [*options.fail.split(":"), "", "", "", ""][:4]
    fails = kind and int(rank) == RANK and int(attempts or "1000") > ATTEMPT
    signal.signal(signal.SIGTERM, signal.SIG_IGN if options.deaf else on_term)
    attempt = RunPaths(ROOT).attempt(ATTEMPT)
    done = saved() if options.resume else 0
    stop_file = Path(os.environ["CLUSTERSEG_STOP_FILE"])
    muted = attempt.folder / f"muted-{RANK}"  # where nobody looks for events
    print(f"rank {RANK} of attempt {ATTEMPT} starts", flush=True)
    with EventWriter(muted if options.mute else attempt.events(RANK)) as events:
        for step in range(done + 1, options.steps + 1):
            time.sleep(0.05)
            if fails and step == int(at):
                print(f"rank {RANK} comes to its end", flush=True)
                if kind == "tell3":
                    end = RankEnd(t=time.time(), rank=RANK, status="failed", error="E: the moon")
                    events.write(end)
                    sys.exit(3)
                fail(kind)
            events.write(
                Steps(t=time.time(), rank=RANK, epoch=0, step=step, count=1, images=1, seconds=0.05)
            )
            request = None if options.deaf else read_stop(stop_file)
            if options.resume and (step % 10 == 0 or request or terminated):
                save(step)
            if request is not None or terminated:
                reason = request.reason if request else "SIGTERM"
                events.write(Stop(t=time.time(), rank=RANK, reason=reason, step=step))
                events.write(RankEnd(t=time.time(), rank=RANK, status="stopped", step=step))
                # As the trainer does: srun sends TERM to those that end a little later.
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                time.sleep(0.5)  # instead of the barrier of real programs
                sys.exit(75)
        events.write(RankEnd(t=time.time(), rank=RANK, status="done", step=options.steps))


main()
