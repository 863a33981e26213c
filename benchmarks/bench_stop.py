"""From a notice to the saved checkpoint, and from a requeue to the first step, by cause.

A small network trains with one rank on each of two nodes of a devcluster of its own, and is
preempted, runs into its time limit, or is cancelled and resumed. The times come from the event
files of rank 0, the stop files and Slurm itself, whose times are whole seconds. The nodes are
one machine: what counts is each figure beside the one of the same run.
"""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cluster import CLUSTERSEG, compiled, devcluster
from result import Result

from clusterseg.runs.eventlog import iter_events
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Checkpoint, Steps

PATIENCE = 400.0  # seconds until what is waited for must have happened
JOB = """\
name: stop
train:
  model: {name: fastscnn}
  data: {format: camvid, root: data, size: [96, 128]}
  loss: {name: cross_entropy}
  epochs: 1000
  batch_size: 2
checkpoint: {every: 10s}
scheduler: slurm
launcher: openmpi5
resources: {nodes: 2, ranks_per_node: 1, cpus_per_rank: 1, time: 30}
slurm: {partition: low}
"""


@dataclass(frozen=True)
class Measured:
    """What one stop took. Times in seconds; `saved` is None where nothing could be saved.

    `first_start` and `restart` are from the start of the batch script to the first step,
    `periodic` is a checkpoint's writing without a hurry, `lost` the steps done twice.
    """

    cause: str
    saved: float | None
    periodic: float
    restart: float
    first_start: float
    lost: int


def main() -> None:
    # A node that is only slow, since all share one machine, is not to be taken for lost.
    size = ("--nodes", "2", "--cores", "1", "--conf", "SlurmdTimeout=300")
    with tempfile.TemporaryDirectory(prefix="clusterseg-bench-") as name:
        folder = Path(name)
        (folder / "job.yaml").write_text(JOB)
        with (
            devcluster("stop", *size, "--preempt-signal") as cluster,
            compiled(cluster) as environ,
        ):
            bench = Bench(folder, environ)
            bench.do("data", "synth", "--format", "camvid", "data", "--size", "96x128")
            report(bench.measure("preemption with notice", bench.preempt))
            report(bench.measure("cancel and resume", bench.cancel))
            report(bench.measure("time limit", bench.wait_for_limit))
        with devcluster("mute", *size) as cluster, compiled(cluster) as environ:
            bench = Bench(folder, environ)
            report(bench.measure("preemption without notice", bench.preempt))


def report(found: Measured) -> None:
    if found.saved is not None:
        Result(
            bench="stop",
            what=f"{found.cause}: notice to saved checkpoint",
            value=found.saved,
            unit="s",
            beside="writing a checkpoint",
            ratio=found.saved / found.periodic,
        ).emit()
    Result(
        bench="stop",
        what=f"{found.cause}: start of the requeued job to first step",
        value=found.restart,
        unit="s",
        beside="the same at the first start",
        ratio=found.restart / found.first_start,
    ).emit()
    Result(
        bench="stop",
        what=f"{found.cause}: steps done twice",
        value=found.lost,
        unit="steps",
        aim="" if found.saved is None else "0",
        met=None if found.saved is None else found.lost == 0,
    ).emit()


class Bench:
    """One cluster and the runs on it."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._folder, self._environ = folder, {**environ, "CLUSTERSEG_RUNS": str(folder / "runs")}

    def measure(self, cause: str, stop: Callable[[RunPaths], float | None]) -> Measured:
        """Lets a run train, stops it by `stop`, and waits until it has gone on for a while.

        `stop` returns when the notice came, in unix seconds; None: there was none.
        """
        print(f"== {cause}", file=sys.stderr, flush=True)
        submitted = json.loads(self.do("submit", "job.yaml", "--json"))
        run, job = RunPaths(Path(submitted["run_dir"])), submitted["job_id"]
        try:
            self._until(lambda: len(checkpoints(run, 0)) >= 2, "a second checkpoint", run)
            first_start = steps(run, 0)[0].t - self._started(job)
            noticed = stop(run)
            self._until(lambda: steps(run, 1) != [], "a step of the second attempt", run)
            job = read(run.submission(1).job_id if run.submission(1).folder.exists() else None, job)
            return Measured(
                cause=cause,
                saved=None if noticed is None else checkpoints(run, 0)[-1].t - noticed,
                periodic=statistics.median(one.write_seconds for one in checkpoints(run, 0)),
                restart=steps(run, 1)[0].t - self._started(job),
                first_start=first_start,
                lost=steps(run, 0)[-1].step - (steps(run, 1)[0].step - steps(run, 1)[0].count),
            )
        finally:
            subprocess.run(["scancel", "--me"], env=self._environ, check=False)
            self._until(lambda: not self._said("squeue", "-h"), "an empty queue", run)

    def preempt(self, run: RunPaths) -> float | None:
        """Both nodes are taken by a job with more weight, for some seconds."""
        taking = ["--nodes=2", "--ntasks-per-node=1", "--partition=high", "--output=/dev/null"]
        job = run.submission(0).job_id.read_text().strip()
        self._said("sbatch", *taking, "--wrap=sleep 5")
        noticed: list[float] = []

        def told() -> bool:
            fields = self._job(job)
            if fields.get("PreemptTime", "").isdigit():
                noticed.append(float(fields["PreemptTime"]))
            return bool(noticed) or run.attempt(0).end.exists()

        self._until(told, "the preemption", run)
        self._until(lambda: run.attempt(1).claim.exists() or ended(run, 0), "its end", run)
        stopped = asked(run)
        return None if stopped is None else min([*noticed, stopped])

    def cancel(self, run: RunPaths) -> float | None:
        noticed = time.time()
        self.do("cancel", run.run_id)
        self.do("resume", run.run_id)
        return noticed

    def wait_for_limit(self, run: RunPaths) -> float | None:
        """The limit is lowered to two minutes from now, however long the start took."""
        job = run.submission(0).job_id.read_text().strip()
        minutes = math.ceil((time.time() - self._started(job)) / 60) + 2
        self._said("scontrol", "update", f"JobId={job}", f"TimeLimit={minutes}")
        self._until(lambda: ended(run, 0), "the time limit", run)
        return asked(run)

    def do(self, *arguments: str) -> str:
        """What a command of clusterseg prints."""
        return self._said(CLUSTERSEG, *arguments)

    def _said(self, *command: str) -> str:
        done = subprocess.run(
            command,
            cwd=self._folder,
            env={**self._environ, "SLURM_TIME_FORMAT": "%s"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout

    def _job(self, job: str) -> dict[str, str]:
        words = self._said("scontrol", "-o", "show", "job", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def _started(self, job: str) -> float:
        """When the job's present life began, in unix seconds."""
        return float(self._job(job)["StartTime"])

    def _until(self, done: Callable[[], object], what: str, run: RunPaths) -> None:
        end = time.monotonic() + PATIENCE
        while not done():
            if time.monotonic() > end:
                log = "".join(
                    path.read_text(errors="replace")[-3000:]
                    for path in sorted(run.root.rglob("*.log"))
                )
                raise SystemExit(f"{what} did not come within {PATIENCE:.0f} s\n{log}")
            time.sleep(0.2)


def steps(run: RunPaths, attempt: int) -> list[Steps]:
    return [one for one in events(run, attempt) if isinstance(one, Steps)]


def checkpoints(run: RunPaths, attempt: int) -> list[Checkpoint]:
    return [one for one in events(run, attempt) if isinstance(one, Checkpoint)]


def events(run: RunPaths, attempt: int) -> list[object]:
    path = run.attempt(attempt).events(0)
    return list(iter_events(path)) if path.exists() else []


def asked(run: RunPaths) -> float | None:
    """When the ranks were asked to stop, by the stop file of the first attempt."""
    found = run.stop_file(0).stat()
    return found.st_mtime if found.st_size else None


def ended(run: RunPaths, attempt: int) -> bool:
    return run.attempt(attempt).end.exists()


def read(path: Path | None, otherwise: str) -> str:
    return path.read_text().strip() if path is not None else otherwise


if __name__ == "__main__":
    main()
