"""Submitting to Slurm, and looking at a thousand jobs, on a devcluster of its own.

`submit` stands beside the least that a Python program can do in its place: import submitit and
call sbatch. The two take turns, round after round; jobs are cancelled outside the time taken.
`list` and `status` find an empty cache each time, and a counting squeue in front of Slurm's.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cluster import CLUSTERSEG, compiled, devcluster
from result import Result

SUBMITIT = "import submitit, and sbatch"
MANY = 1000  # jobs
JOB = """\
name: bench
command: [sleep, "600"]
scheduler: slurm
resources: {nodes: 1, ranks_per_node: 1, cpus_per_rank: 1, time: 10}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--jobs", type=int, default=MANY)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="clusterseg-bench-") as name,
        devcluster("slurm", "--nodes", "1", "--cores", "2") as cluster,
        compiled(cluster) as environ,
    ):
        folder = Path(name)
        (folder / "job.yaml").write_text(JOB)
        submitting(folder, environ, options.rounds)
        looking(folder, environ, options.jobs)


def submitting(folder: Path, environ: Mapping[str, str], rounds: int) -> None:
    times: dict[str, list[float]] = {SUBMITIT: [], "clusterseg submit": []}
    for number in range(rounds + 1):
        seconds = {
            SUBMITIT: timed([sys.executable, "-c", "import submitit"], folder, environ)
            + timed(["sbatch", "--output=/dev/null", "--wrap=true"], folder, environ),
            "clusterseg submit": timed(
                [CLUSTERSEG, "submit", "job.yaml", "--json", "--runs-dir", "submitted"],
                folder,
                environ,
            ),
        }
        subprocess.run(["scancel", "--me"], env=dict(environ), check=True)
        if number > 0:  # the first one compiles, and warms the file cache
            for what, value in seconds.items():
                times[what].append(value)
        print(f"round {number} of {rounds}", file=sys.stderr)
    anchor = statistics.median(times[SUBMITIT])
    for what, values in times.items():
        median = statistics.median(values)
        ratio = median / anchor
        aimed = what != SUBMITIT
        Result(
            bench="slurm",
            what=what,
            value=median,
            unit="s",
            beside=SUBMITIT,
            ratio=ratio,
            aim="ratio <= 1.5" if aimed else "",
            met=ratio <= 1.5 if aimed else None,
        ).emit()


def looking(folder: Path, environ: Mapping[str, str], jobs: int) -> None:
    """`list` of so many runs whose jobs all wait, and `status` of one of them."""
    runs = thousand(folder / "many", environ, jobs)
    counted, calls = counting_squeue(folder / "bin", environ)
    bare = statistics.median(timed(["squeue", "--me"], folder, environ) for _ in range(5))
    commands = {
        f"clusterseg list of {jobs} jobs": ["list", "--json", "-n", str(jobs)],
        f"clusterseg status, one of {jobs}": ["status", "--json", runs[0]],
    }
    for what, command in commands.items():
        seconds, asked = [], []
        for number in range(6):
            own = {**counted, "XDG_CACHE_HOME": str(folder / f"cache-{what[:16]}-{number}")}
            calls.write_text("")
            seconds.append(
                timed([CLUSTERSEG, *command, "--runs-dir", "many"], folder, own, show=what)
            )
            asked.append(len(calls.read_text().splitlines()))
        median = statistics.median(seconds[1:])
        Result(
            bench="slurm",
            what=what,
            value=median,
            unit="s",
            beside="squeue --me",
            ratio=median / bare,
            aim="<= 1 s",
            met=median <= 1,
        ).emit()
        # `status` of a job that waits also asks for its place in the queue.
        most = 1 if command[0] == "list" else 2
        Result(
            bench="slurm",
            what=f"{what}: calls of squeue",
            value=max(asked),
            unit="calls",
            aim=f"<= {most}",
            met=max(asked) <= most,
        ).emit()


def thousand(root: Path, environ: Mapping[str, str], jobs: int) -> list[str]:
    """Runs as `submit` leaves them, with held jobs that carry their keys; returns their ids.

    Made without a `clusterseg submit` each, which would take minutes.
    """
    from clusterseg.cluster.slurm.jobs import job_comment, job_name
    from clusterseg.runs import files, making
    from clusterseg.runs.paths import RunPaths
    from clusterseg.runs.records import Identity, Intent

    now = time.time()

    def make(number: int) -> str:
        key = os.urandom(16).hex()
        run = RunPaths(root / making.run_id("bench", now - 60, f"{number:04x}"))
        intent = Intent(
            t=now - 60, key=key, submission=0, scheduler="slurm", host="login", uid=os.getuid()
        )
        identity = Identity(key=key, uid=os.getuid(), name="bench", created=now - 60)
        made = making.create_run(run, identity, making.SubmissionFiles(JOB, b"{}", "", intent))
        words = [f"--job-name={job_name('bench', key)}", f"--comment={job_comment(key)}"]
        said = subprocess.run(
            ["sbatch", "--hold", "--parsable", "--output=/dev/null", *words, "--wrap=true"],
            env=dict(environ),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        files.commit_new(made.job_id, said.encode())
        return run.run_id

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(make, range(jobs)))


def counting_squeue(folder: Path, environ: Mapping[str, str]) -> tuple[dict[str, str], Path]:
    """An environment in which each call of squeue adds a line to a file, and that file."""
    folder.mkdir()
    calls = folder / "calls"
    real = shutil.which("squeue", path=environ["PATH"])
    shim = folder / "squeue"
    shim.write_text(f'#!/bin/sh\necho call >> {calls}\nexec {real} "$@"\n')
    shim.chmod(0o755)
    return {**environ, "PATH": f"{folder}:{environ['PATH']}"}, calls


def timed(
    command: Sequence[str], folder: Path, environ: Mapping[str, str], *, show: str = ""
) -> float:
    """Seconds of a program from its start to its end."""
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=dict(environ), capture_output=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.decode(errors='replace')}")
    if show.startswith("clusterseg list"):
        found = json.loads(done.stdout)
        states = {run["state"] for run in (found["runs"] if isinstance(found, dict) else found)}
        if states != {"queued"}:
            raise SystemExit(f"the states are {states}")
    return seconds


if __name__ == "__main__":
    main()
