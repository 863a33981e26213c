"""Planning 10,000 ranks on 1,250 hosts with unequal counts, for every launcher.

Each launcher's plan is made in a process of its own, from the text of its job.yaml to the batch
script: the median of the rounds counts, and the peak memory of the process. Beside it stands what
reading the same file alone costs, with libyaml's parser. Then what such a plan leaves behind: the
sizes of its files, the time to write them, and `render` of the same job as a whole process.
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
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from result import Result

if TYPE_CHECKING:
    from clusterseg.plan.dialect import Dialect
    from clusterseg.plan.model import Plan
    from clusterseg.runs.paths import RunPaths

HOSTS, RANKS = 1250, 10_000
COUNTS = (6, 7, 8, 9, 10)  # of the hosts, in turn
CORES = 32  # of a host, on two sockets
SITE = f"""
title: Large
partitions:
  cpu: {{max_time: 1-00, max_nodes: {HOSTS}, cores: {CORES}, sockets: 2}}
default_partition: cpu
"""
READING = "yaml.load of the same job.yaml"
ANCHOR = "import typer"
CLUSTERSEG = str(Path(sys.executable).with_name("clusterseg"))
SECONDS, MEGABYTES = 1.0, 200.0  # aimed at


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--child", metavar="LAUNCHER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        print(json.dumps(measure(options.child, options.rounds)))
        return
    assert sum(COUNTS[number % len(COUNTS)] for number in range(HOSTS)) == RANKS
    for launcher in launchers():
        asked = [sys.executable, __file__, "--child", launcher, "--rounds", str(options.rounds)]
        done = subprocess.run(asked, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(done.stdout)
        emit(
            f"{launcher}: plan", found["plan"], "s", beside=(READING, found["reading"]), aim=SECONDS
        )
        emit(
            f"{launcher}: peak",
            found["peak"],
            "MB",
            beside=("the process before", found["start"]),
            aim=MEGABYTES,
        )
        print(f"{launcher} is planned", file=sys.stderr)
    files(options.rounds)
    render(options.rounds)


def launchers() -> list[str]:
    """All that are shipped but `local`, which starts ranks on this host only."""
    from clusterseg.shipped import shipped_folder

    names = sorted(file.stem for file in shipped_folder("launchers").glob("*.yaml"))
    return [name for name in names if name != "local"]


def measure(launcher: str, rounds: int) -> dict[str, float]:
    """In this process: seconds of a plan and of reading its file, and megabytes at the peak."""
    start = peak()
    make = planner(launcher)
    plans = [timed(make) for _ in range(rounds)]
    most = peak()
    import yaml

    text = job_yaml()
    reading = [timed(lambda: yaml.load(text, Loader=yaml.CSafeLoader)) for _ in range(rounds)]
    return {
        "plan": statistics.median(plans),
        "reading": statistics.median(reading),
        "peak": most,
        "start": start,
    }


def planner(launcher: str) -> Callable[[], Plan]:
    """Makes the plan of the job, as `render` would on a machine that has `launcher`."""
    from msgspec.structs import replace

    from clusterseg.plan.dialect_reader import read_dialect
    from clusterseg.plan.model import Host, LauncherPair
    from clusterseg.plan.planner import make_plan
    from clusterseg.plan.site import read_site
    from clusterseg.plan.slurm_plan import symbolic_hosts
    from clusterseg.plan.wrapped import Inner
    from clusterseg.shipped import shipped_folder
    from clusterseg.spec.reader import parse_job

    text = job_yaml()

    def definition(name: str) -> Dialect:
        file = shipped_folder("launchers") / f"{name}.yaml"
        return read_dialect(name, file.read_text(), str(file))

    dialect = definition(launcher)
    template = (shipped_folder("slurm") / "batch.sh.j2").read_text()
    site = read_site("large", SITE, "large.yaml", {}) if dialect.starts_any_mpi else None
    pair = LauncherPair(name=launcher, version="1", program="/opt/bin/mpirun")
    # A wrapper calls another's mpirun.
    inner = Inner(definition("openmpi5"), replace(pair, name="openmpi5")) if dialect.wraps else None

    def make() -> Plan:
        spec = parse_job(text, "job.yaml", environ={}).spec
        named = spec.resources.hosts
        assert named is not None
        hosts = (
            [Host(name=name, cores=CORES, sockets=2, numa_nodes=2) for name in named]
            if site is None
            else symbolic_hosts(spec, site)
        )
        plan = make_plan(
            spec,
            dialect=dialect,
            inner=inner,
            pair=pair,
            hosts=hosts,
            program=["/opt/bin/clusterseg"],
            as_root=False,
            directory="/home/ada",
            site=site,
            template="" if site is None else template,
        )
        assert plan.ranks == RANKS
        return plan

    return make


def job_yaml() -> str:
    counts = "".join(
        f"    node{number:04}: {COUNTS[number % len(COUNTS)]}\n" for number in range(HOSTS)
    )
    return (
        "name: large\ncommand: [python, fit.py]\n"
        "placement: {map_by: socket, bind_to: core}\n"
        f"resources:\n  cpus_per_rank: 3\n  hosts:\n{counts}"
    )


def files(rounds: int) -> None:
    """What `submit` and the claim of an attempt write for a plan of this size."""
    import msgspec

    from clusterseg.plan.planner import fill
    from clusterseg.runs import making
    from clusterseg.runs.records import Identity, Intent

    plan = planner("openmpi5")()
    started = time.time()
    identity = Identity(key="k", uid=os.getuid(), name=plan.name, created=started)
    with tempfile.TemporaryDirectory(prefix="clusterseg-bench-") as folder:
        making_seconds, claim_seconds, raw = [], [], []
        for number in range(rounds):
            run = making.choose_run(Path(folder) / str(number), plan.name, started)

            def make(run: RunPaths = run) -> None:
                filled = fill(plan, run_dir=str(run.root))
                intent = Intent(
                    t=started, key="k", submission=0, scheduler="local", host="n", uid=os.getuid()
                )
                encoded = msgspec.json.encode(filled)
                submission = making.SubmissionFiles(job_yaml(), encoded, filled.script, intent)
                making.create_run(run, identity, submission)

            making_seconds.append(timed(make))
            claim_seconds.append(timed(partial(claim, run, plan)))
            claimed = run.attempt(0).claim.read_bytes()
            raw.append(timed(partial(write_durably, Path(folder) / "raw", claimed)))
        first = run.submission(0)
        sizes = {
            "plan.json": first.plan,
            "batch.sh": first.batch_script,
            "claim.json": run.attempt(0).claim,
        }
        for name, path in sizes.items():
            Result("plan", f"{name}, size", path.stat().st_size / 1e3, "kB").emit()
    beside = ("writing claim.json's bytes and fsync", statistics.median(raw))
    emit("the run directory written", statistics.median(making_seconds), "s", beside=beside)
    emit("an attempt claimed", statistics.median(claim_seconds), "s", beside=beside)


def claim(run: RunPaths, plan: Plan) -> None:
    """The claim of the first attempt, as the supervisor makes it; nobody has to be asked for it."""
    from clusterseg.runs.claims import Wanted, claim_next

    wanted = Wanted(
        submission=0,
        key="k",
        uid=os.getuid(),
        job_id="local-n-1-1",
        restart_count=0,
        host="n",
        boot_id="boot",
        pid=os.getpid(),
        pid_start=1,
        hosts=plan.hosts,
        ranks=plan.ranks,
        argv_of=lambda attempt: plan.argv,
    )
    assert claim_next(run, wanted, cast(Any, None)) is not None


def write_durably(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def render(rounds: int) -> None:
    """`render` of the job as a whole process, with the mpirun that comes with this Python."""
    with tempfile.TemporaryDirectory(prefix="clusterseg-bench-") as folder:
        job = Path(folder) / "job.yaml"
        # With its own way to the hosts they are not looked for in the resolver, which has none.
        job.write_text(job_yaml() + "launcher_args: [--prtemca, plm_ssh_agent, ssh]\n")
        command = [CLUSTERSEG, "render", str(job), "--set", "scheduler=local"]
        run(command)  # what it remembers of the launcher is learned
        ours, anchor = [], []
        for _ in range(rounds):
            ours.append(timed(lambda: run(command)))
            anchor.append(timed(lambda: run([sys.executable, "-c", ANCHOR])))
    emit(
        "clusterseg render",
        statistics.median(ours),
        "s",
        beside=(ANCHOR, statistics.median(anchor)),
    )


def run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)


def emit(
    what: str,
    value: float,
    unit: str,
    *,
    beside: tuple[str, float],
    aim: float | None = None,
) -> None:
    Result(
        bench="plan",
        what=what,
        value=value,
        unit=unit,
        beside=beside[0],
        ratio=value / beside[1],
        aim="" if aim is None else f"< {aim:g} {unit}",
        met=None if aim is None else value < aim,
    ).emit()


def timed(call: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def peak() -> float:
    """Megabytes that this process has needed at most. (getrusage counts those of the process that
    started it, too.)"""
    (line,) = (
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM:")
    )
    return int(line.split()[1]) / 1e3


if __name__ == "__main__":
    main()
