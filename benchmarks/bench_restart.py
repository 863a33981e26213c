"""From the start of a rank's process to its first new step after a resume, by its parts.

Fast-SCNN on small pictures, one rank on one core: the run is cancelled in its middle and resumed.
The parts are those of the events `phase`; what is left up to the end of the first step is mostly
TensorFlow building the graph. Beside it is a process that does nothing but `import tensorflow`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench_train import CLUSTERSEG, SIZE, pinned
from result import Result

ROUNDS, PATIENCE = 3, 300.0
JOB = """
name: restart
train:
  model: {{name: fastscnn}}
  data: {{format: camvid, root: {root}, size: [{height}, {width}]}}
  optimizer: {{name: sgd, momentum: 0.9, learning_rate: 0.01}}
  epochs: 100000
  batch_size: 4
resources: {{nodes: 1, ranks_per_node: 1, cpus_per_rank: 1}}
placement: {{bind_to: none}}
scheduler: local
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    core = min(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="clusterseg-bench-") as name:
        folder = Path(name)
        os.environ["CLUSTERSEG_RUNS"] = str(folder / "runs")
        made = ["data", "synth", "--format", "camvid", str(folder / "data"), "--train", "400"]
        made += ["--val", "4", "--test", "0", "--size", f"{SIZE[0]}x{SIZE[1]}"]
        subprocess.run([CLUSTERSEG, *made], check=True, capture_output=True)
        job = folder / "job.yaml"
        job.write_text(JOB.format(root=folder / "data", height=SIZE[0], width=SIZE[1]))
        printed = cli(core, "submit", str(job), "--json")
        run = Path(json.loads(printed.splitlines()[0])["run_dir"])
        try:
            found = measure(core, run, options.rounds)
        finally:  # it would train for ever
            cli(core, "cancel", run.name, "--now", ends=(0, 1))
    report({part: statistics.median(values) for part, values in found.items()})


def measure(core: int, run: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds by part, of every round."""
    found: dict[str, list[float]] = {}
    for number in range(rounds):
        wait_for_step(run, number)
        cli(core, "cancel", run.name)
        cli(core, "wait", run.name, ends=(75,))
        cli(core, "resume", run.name)
        for part, seconds in parts(run, number + 1).items():
            found.setdefault(part, []).append(seconds)
        found.setdefault("bare", []).append(import_tensorflow(core))
    return found


def report(medians: dict[str, float]) -> None:
    bare = medians.pop("bare")
    for part, seconds in medians.items():
        Result(
            bench="restart",
            what=f"a rank on one core, fastscnn: {part}",
            value=seconds,
            unit="s",
            beside="import tensorflow",
            ratio=seconds / bare,
        ).emit()


def parts(run: Path, attempt: int) -> dict[str, float]:
    """Seconds by part, and in all, up to the end of the attempt's first step."""
    events = wait_for_step(run, attempt)
    startup, restore = (
        next(one for one in events if one.get("name") == name) for name in ("startup", "restore")
    )
    first = next(one for one in events if one["kind"] == "steps")
    began = startup["t"] - startup["seconds"]
    found = {f"startup, {name}": value for name, value in startup["parts"].items()}
    found |= {f"restore, {name}": value for name, value in restore["parts"].items()}
    found["first step"] = first["t"] - restore["t"]
    return {"in all": first["t"] - began, **found}


def wait_for_step(run: Path, attempt: int) -> list[dict[str, Any]]:
    path = run / "attempts" / f"{attempt:03d}" / "ranks" / "00000.jsonl"
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        lines = path.read_text().splitlines() if path.exists() else []
        events = [json.loads(line) for line in lines[:-1]]  # the last one may be half there
        if any(one["kind"] == "steps" for one in events):
            return events
        time.sleep(0.2)
    sys.exit(f"attempt {attempt} made no step in {PATIENCE:.0f} s")


def cli(core: int, *arguments: str, ends: tuple[int, ...] = (0,)) -> str:
    process = pinned([CLUSTERSEG, *arguments], [core])
    printed, said = process.communicate()
    if process.returncode not in ends:
        sys.exit(f"{' '.join(arguments)} ended with {process.returncode}:\n{said}")
    return printed


def import_tensorflow(core: int) -> float:
    begin = time.perf_counter()
    pinned([sys.executable, "-c", "import tensorflow"], [core]).communicate()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
