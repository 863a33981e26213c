"""Whole-process times of `doctor`, beside the same two ranks started by hand.

Only the embedded MPI is asked (the PATH is empty), so that figures of machines with and without
others mean the same. The commands take turns, round after round; the median counts.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from result import Result

BESIDE = Path(sys.executable).parent
CLUSTERSEG = str(BESIDE / "clusterseg")
ANCHOR = "import typer"
BY_HAND = "mpirun by hand"
MPI4PY = "from mpi4py import MPI; assert MPI.COMM_WORLD.allreduce(1) == 2"
HOROVOD = (
    "import tensorflow as tf, horovod.tensorflow as hvd; hvd.init(); "
    "assert float(hvd.allreduce(tf.constant(1.0), op=hvd.Sum)) == 2"
)
# Multiples of what stands beside that are aimed at.
AIMS = {"doctor --no-ranks": 3.0, "doctor": 1.1}
# Asking adds little to a look around and to what the ranks themselves take.
PEERS = {"doctor --no-ranks": (ANCHOR,), "doctor": ("doctor --no-ranks", BY_HAND)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="clusterseg-bench-") as folder:
        environ = {**os.environ, "PATH": folder, "SLURM_CONF": "/nowhere"}
        for number in range(rounds + 1):
            for what, value in one_round(environ).items():
                if number > 0:  # the first one warms the file cache
                    times.setdefault(what, []).append(value)
            print(f"round {number} of {rounds}", file=sys.stderr)
    medians = {what: statistics.median(values) for what, values in times.items()}
    for what, median in medians.items():
        peers, aim = PEERS.get(what, ()), AIMS.get(what)
        ratio = median / sum(medians[peer] for peer in peers) if peers else None
        Result(
            bench="doctor",
            what=what,
            value=median,
            unit="s",
            beside=" + ".join(peers),
            ratio=ratio,
            aim=f"ratio <= {aim}" if aim else "",
            met=ratio <= aim if aim and ratio is not None else None,
        ).emit()


def one_round(environ: Mapping[str, str]) -> dict[str, float]:
    """Seconds of each command, once each. With Horovod installed doctor asks it, too."""
    programs = [MPI4PY, HOROVOD] if importlib.util.find_spec("horovod") else [MPI4PY]
    return {
        ANCHOR: timed([sys.executable, "-c", ANCHOR], environ)[0],
        "doctor --no-ranks": timed([CLUSTERSEG, "doctor", "--no-ranks"], environ)[0],
        BY_HAND: sum(timed(by_hand(program), environ)[0] for program in programs),
        "doctor": asked(environ),
    }


def asked(environ: Mapping[str, str]) -> float:
    seconds, printed = timed([CLUSTERSEG, "doctor", "--json"], environ)
    asked = [one for one in json.loads(printed)["launchers"] if one["two_ranks"] is not None]
    if len(asked) != 1:
        raise SystemExit(f"doctor asked {len(asked)} launchers, not the embedded one alone")
    return seconds


def by_hand(program: str) -> list[str]:
    root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
    many = ["-np", "2", "--map-by", ":OVERSUBSCRIBE", "--bind-to", "none"]
    return [str(BESIDE / "mpirun"), *root, *many, sys.executable, "-c", program]


def timed(command: list[str], environ: Mapping[str, str]) -> tuple[float, str]:
    """Seconds of a program from its start to its end, and what it printed."""
    start = time.perf_counter()
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    return time.perf_counter() - start, done.stdout


if __name__ == "__main__":
    main()
