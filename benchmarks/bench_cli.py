"""Whole-process times of the light commands, beside `python -c "import typer"`.

The commands take turns, round after round, so that a busy moment of the machine meets all of
them; the median of the rounds counts. `submit` is timed until it returns; its job is cancelled at
once and waited for, outside the time that is taken.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from result import Result

TOP = Path(__file__).resolve().parent.parent
DEMO = str(TOP / "jobs" / "demo.yaml")
CLUSTERSEG = str(Path(sys.executable).with_name("clusterseg"))
ANCHOR = "import typer"

# Multiples of the anchor that are aimed at.
AIMS = {"clusterseg --help": 1.5, "clusterseg render": 2.5, "clusterseg submit": 2.5}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="clusterseg-bench-") as folder:
        for number in range(rounds + 1):
            seconds = one_round(Path(folder) / f"runs-{number}")
            if number > 0:  # the first one warms the file cache
                for what, value in seconds.items():
                    times.setdefault(what, []).append(value)
            print(f"round {number} of {rounds}", file=sys.stderr)
    anchor = statistics.median(times[ANCHOR])
    for what, values in times.items():
        median = statistics.median(values)
        aim = AIMS.get(what)
        Result(
            bench="cli",
            what=what,
            value=median,
            unit="s",
            beside=ANCHOR,
            ratio=median / anchor,
            aim=f"ratio <= {aim}" if aim else "",
            met=None if aim is None else median / anchor <= aim,
        ).emit()


def one_round(runs: Path) -> dict[str, float]:
    """Seconds of each command, once each."""
    where = ["--runs-dir", str(runs)]
    seconds = {
        ANCHOR: timed([sys.executable, "-c", ANCHOR])[0],
        "clusterseg --help": timed([CLUSTERSEG, "--help"])[0],
        "clusterseg render": timed([CLUSTERSEG, "render", DEMO])[0],
    }
    seconds["clusterseg submit"], printed = timed([CLUSTERSEG, "submit", DEMO, "--json", *where])
    run = json.loads(printed)["run"]
    # Its end is waited for, so that the next command has the machine for itself.
    subprocess.run([CLUSTERSEG, "cancel", "--now", run, *where], check=True, capture_output=True)
    subprocess.run([CLUSTERSEG, "wait", run, *where], check=False, capture_output=True)
    seconds["clusterseg status"] = timed([CLUSTERSEG, "status", run, *where])[0]
    return seconds


def timed(command: list[str]) -> tuple[float, str]:
    """Seconds of a program from its start to its end, and what it printed."""
    start = time.perf_counter()
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=True)
    return time.perf_counter() - start, done.stdout


if __name__ == "__main__":
    main()
