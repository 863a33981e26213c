"""Peak memory of a rank beside Keras' `fit`: the same network, batch, files and pipeline.

Of a rank alone, and of either of two over mpi4py: rank 0 holds the copy that checkpoints are
written from. What a rank needed at most stands in its `rank_end`; of `fit` the kernel tells it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench_train import BATCH, CLUSTERSEG, SIZE, start, start_fit
from result import Result

STEPS = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[:2]
    with tempfile.TemporaryDirectory(prefix="clusterseg-bench-") as name:
        folder = Path(name)
        data = folder / "data"
        made = ["data", "synth", "--format", "camvid", str(data), "--val", "4", "--test", "0"]
        made += ["--train", str(2 * BATCH * options.steps), "--size", f"{SIZE[0]}x{SIZE[1]}"]
        subprocess.run([CLUSTERSEG, *made], check=True, capture_output=True)
        fit = peak_of_fit(start_fit(data, cores[0], options.steps))
        alone = start(folder, data, options.steps, communicator="solo", ranks=1, cores=cores[:1])
        report("a rank alone", peaks(alone)[0], fit)
        if len(cores) > 1:
            both = start(folder, data, options.steps, communicator="mpi", ranks=2, cores=cores)
            for number, peak in enumerate(peaks(both)):
                report(f"rank {number} of 2, mpi4py", peak, fit)


def report(what: str, peak: int, fit: int) -> None:
    Result(
        bench="memory",
        what=f"fastscnn, {SIZE[0]}x{SIZE[1]}, batch {BATCH}: {what}, at most",
        value=peak / 1e6,
        unit="MB",
        beside="Keras model.fit",
        ratio=peak / fit,
    ).emit()


def peak_of_fit(process: subprocess.Popen[str]) -> int:
    """Bytes; waits for its end."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"fit failed ({process.returncode})")
    return usage.ru_maxrss * 1024


def peaks(submit: subprocess.Popen[str]) -> list[int]:
    """Bytes of each rank, when the job is done."""
    printed, said = submit.communicate()
    if submit.returncode != 0:
        sys.exit(f"the job failed ({submit.returncode}):\n{said}")
    run = Path(json.loads(printed.splitlines()[0])["run_dir"])
    ends = [
        json.loads(path.read_text().splitlines()[-1])
        for path in sorted(run.glob("attempts/000/ranks/*.jsonl"))
    ]
    return [int(end["peak_bytes"]) for end in ends]


if __name__ == "__main__":
    main()
