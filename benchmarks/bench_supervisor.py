"""What the supervisor itself takes of a core while 64 ranks run, by the kernel's account.

The ranks are stand-ins without TensorFlow or MPI: processes that do nothing but write a `steps`
event each second, as the trainer's do. Counted are the supervisor and its fence over a minute in
which the ranks step; the start, with its imports, is left out. Beside it is `tail`, which looks at
the same files each second in the same minute, as it must where inotify does not reach (a network
file system), and does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
from result import Result

from clusterseg.runs import making
from clusterseg.runs.control import StopReason, request_stop
from clusterseg.runs.eventlog import EventWriter
from clusterseg.runs.paths import AttemptPaths, RunPaths
from clusterseg.runs.records import Identity, Intent, RankStart, Steps

CLUSTERSEG = str(Path(sys.executable).with_name("clusterseg"))
RANKS, SECONDS = 64, 60.0
PATIENCE = 60.0  # seconds until all ranks must have stepped
SETTLING = 5.0  # seconds after that which are left out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, default=RANKS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--stand-in", type=Path, metavar="RUN_DIR", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stand_in is not None:
        be_ranks(RunPaths(options.stand_in).attempt(0), options.ranks)
        return
    with tempfile.TemporaryDirectory(prefix="clusterseg-bench-") as name:
        run = make_run(Path(name), options.ranks)
        ranks = [sys.executable, __file__, "--ranks", str(options.ranks), "--stand-in"]
        supervisor = subprocess.Popen(
            [CLUSTERSEG, "attempt", str(run.root), "--", *ranks, str(run.root)],
            stdout=subprocess.DEVNULL,
            stderr=(Path(name) / "said").open("w"),
        )
        files = [run.attempt(0).events(rank) for rank in range(options.ranks)]
        try:
            wait_until_all_step(supervisor, files, Path(name) / "said")
            ours, beside, wall = measure(supervisor.pid, files, options.seconds)
        finally:
            request_stop(run.stop_file(0), StopReason.CANCEL_NOW)
            supervisor.wait(PATIENCE)
    Result(
        bench="supervisor",
        what=f"supervising {options.ranks} stand-in ranks, of a core",
        value=100 * ours / wall,
        unit="%",
        beside="tail -F of their files, polling each second",
        ratio=ours / beside if beside else None,
        aim="< 1 %",
        met=ours / wall < 0.01,
    ).emit()


def measure(supervisor: int, files: list[Path], seconds: float) -> tuple[float, float, float]:
    """CPU seconds of the supervisor with its fence, those of tail, and the seconds that passed."""
    polling = ["tail", "---disable-inotify", "-s", "1", "-q", "-n", "0", "-F", *map(str, files)]
    with subprocess.Popen(polling, stdout=subprocess.DEVNULL) as tail:
        time.sleep(SETTLING)
        own = [supervisor, *(one for one in children(supervisor) if not is_launcher(one))]
        begun, tail_before = time.monotonic(), cpu_seconds(tail.pid)
        before = sum(map(cpu_seconds, own))
        time.sleep(seconds)
        ours, wall = sum(map(cpu_seconds, own)) - before, time.monotonic() - begun
        beside = cpu_seconds(tail.pid) - tail_before
        tail.terminate()
    print(f"{len(own)} processes: {ours:.2f} s; tail: {beside:.2f} s", file=sys.stderr)
    return ours, beside, wall


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_launcher(pid: int) -> bool:
    return __file__.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:2]


def cpu_seconds(pid: int) -> float:
    """Time on a core of a process with one thread, from the kernel's nanoseconds (schedstat)."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def wait_until_all_step(supervisor: subprocess.Popen[bytes], files: list[Path], said: Path) -> None:
    until = time.monotonic() + PATIENCE
    while not all(file.exists() and b'"steps"' in file.read_bytes() for file in files):
        if supervisor.poll() is not None or time.monotonic() > until:
            raise SystemExit(f"the ranks do not step:\n{said.read_text()}")
        time.sleep(0.2)


def make_run(folder: Path, ranks: int) -> RunPaths:
    """A run of `ranks` ranks as `submit` makes it."""
    from clusterseg.plan.planner import fill
    from clusterseg.submit.request import read_request

    job = folder / "job.yaml"
    job.write_text(
        json.dumps(
            {
                "name": "bench",
                "command": ["true"],
                "resources": {"nodes": 1, "ranks_per_node": ranks},
                "placement": {"bind_to": "none", "oversubscribe": True},
                "scheduler": "local",
            }
        )
    )
    plan = read_request(job)
    run = making.choose_run(folder / "runs", plan.name, time.time())
    filled = fill(plan, run_dir=str(run.root))
    intent = Intent(
        t=time.time(), key="k", submission=0, scheduler="local", host="here", uid=os.getuid()
    )
    making.create_run(
        run,
        Identity(key="k", uid=os.getuid(), name=plan.name, created=time.time()),
        making.SubmissionFiles(
            job_yaml="", plan=msgspec.json.encode(filled), script=filled.script, intent=intent
        ),
    )
    return run


def be_ranks(attempt: AttemptPaths, count: int) -> None:
    """Stands for mpirun and its ranks: one process each, until TERM."""
    parent = os.getpid()  # whose children get another one when it dies, not everywhere process 1
    for rank in range(count):
        if os.fork() == 0:
            be_rank(attempt, rank, count, parent)
    signal.pause()


def be_rank(attempt: AttemptPaths, rank: int, count: int, parent: int) -> None:
    start = RankStart(
        t=time.time(), rank=rank, attempt=0, world_size=count, host=os.uname().nodename,
        local_rank=rank, pid=os.getpid(), cpus=sorted(os.sched_getaffinity(0)),
    )  # fmt: skip
    with EventWriter(attempt.events(rank)) as events:
        events.write(start)
        step = 0
        while os.getppid() == parent:
            step += 1
            events.write(
                Steps(
                    t=time.time(), rank=rank, epoch=0, step=step, count=1, images=4, seconds=1.0,
                    wait_data=0.1, comm=0.1, loss=1.0, learning_rate=0.01,
                )
            )  # fmt: skip
            time.sleep(1.0)
    os._exit(0)


if __name__ == "__main__":
    main()
