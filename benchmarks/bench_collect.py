"""`clusterseg collect`: a run of 1,024 ranks x 10,000 windows, and one of 2 ranks.

Whole processes. The large run (about 2 GB) is written into a temporary folder, which is removed
afterwards. The peer of the large run is the standard library: `json.loads` over the same lines,
nothing else, on some of the files, scaled to all of them. That of the small run is
`python -c "import typer"`. Memory is that of all processes together, shared pages counted in
each, looked at ten times a second.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from result import Result

CLUSTERSEG = str(Path(sys.executable).with_name("clusterseg"))
ANCHOR = "import typer"
RANKS, WINDOWS, STEPS_A_WINDOW, RANKS_A_HOST = 1024, 10_000, 10, 8
SAMPLE = 4  # files that the peer reads
VARIANTS = 8  # different logs; the others repeat their figures under another rank
ROUNDS = 9  # of the small run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, default=RANKS)
    parser.add_argument("--windows", type=int, default=WINDOWS)
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="clusterseg-bench-", dir=options.folder) as folder:
        large(Path(folder) / "large", options.ranks, options.windows)
        small(Path(folder) / "small")


def large(run: Path, ranks: int, windows: int) -> None:
    needed = 2 * ranks * windows * 210
    free = shutil.disk_usage(run.parent).free
    if free < needed:
        sys.exit(f"{run.parent} has {free >> 20} MB free, the benchmark wants {needed >> 20} MB")
    print(f"writing {ranks} logs of {windows} windows", file=sys.stderr)
    size = write_run(run, ranks, windows)
    print(f"collecting {size >> 20} MB", file=sys.stderr)
    before = processor_seconds()
    seconds, megabytes, printed = measured([CLUSTERSEG, "collect", str(run), "--json"])
    worked = processor_seconds() - before
    summary = json.loads(printed)
    assert summary["steps"] == {"completed": windows * STEPS_A_WINDOW, "replayed": 0}, summary
    assert len(summary["per_rank"]) == ranks
    assert summary["missing"] == []
    peer = json_loads(run) * ranks / min(SAMPLE, ranks)
    full = (ranks, windows) == (RANKS, WINDOWS)
    what = f"{ranks} ranks x {windows} windows, {size >> 20} MB"
    Result(
        bench="collect",
        what=what,
        value=seconds,
        unit="s",
        beside=f"json.loads alone, {SAMPLE} files scaled up",
        ratio=seconds / peer,
        aim="<= 20 s" if full else "",
        met=seconds <= 20 if full else None,
    ).emit()
    # On a busy machine the figure to look at: on free cores it is shared out among them.
    Result(bench="collect", what=f"{what}: processor time", value=worked, unit="s").emit()
    Result(
        bench="collect",
        what=f"{what}: peak memory",
        value=megabytes,
        unit="MB",
        aim="<= 500 MB" if full else "",
        met=megabytes <= 500 if full else None,
    ).emit()


def small(run: Path) -> None:
    write_run(run, 2, 100)
    anchor, collect, memory = [], [], []
    for number in range(ROUNDS + 1):
        times = measured([sys.executable, "-c", ANCHOR])
        found = measured([CLUSTERSEG, "collect", str(run), "--json"])
        if number > 0:  # the first one warms the file cache
            anchor.append(times[0])
            collect.append(found[0])
            memory.append(found[1])
    seconds = statistics.median(collect)
    what = "2 ranks x 100 windows"
    Result(
        bench="collect",
        what=what,
        value=seconds,
        unit="s",
        beside=ANCHOR,
        ratio=seconds / statistics.median(anchor),
        aim="<= 0.5 s",
        met=seconds <= 0.5,
    ).emit()
    Result(bench="collect", what=f"{what}: peak memory", value=max(memory), unit="MB").emit()


def write_run(run: Path, ranks: int, windows: int) -> int:
    """Writes a run of one attempt that is done; returns the bytes of its logs."""
    attempt = run / "attempts" / "000"
    (attempt / "ranks").mkdir(parents=True)
    hosts = {f"n{host:03d}": RANKS_A_HOST for host in range(-(-ranks // RANKS_A_HOST))}
    start = 1.7e9
    claim = {
        "t": start,
        "attempt": 0,
        "submission": 0,
        "key": "k",
        "uid": 0,
        "job_id": "1",
        "restart_count": 0,
        "host": "n000",
        "boot_id": "b",
        "pid": 1,
        "pid_start": 1,
        "nonce": "n",
        "hosts": hosts,
        "ranks": ranks,
        "argv": ["mpirun"],
        "resume_from": None,
        "resume_step": 0,
        "accepted": {},
    }
    (attempt / "claim.json").write_text(json.dumps(claim))
    logs = [log(variant, windows, ranks, start) for variant in range(VARIANTS)]
    size = 0
    for rank in range(ranks):
        data = logs[rank % VARIANTS].replace(b'"rank":0,', b'"rank":%d,' % rank)
        data = data.replace(b'"host":"n000"', b'"host":"n%03d"' % (rank // RANKS_A_HOST))
        (attempt / "ranks" / f"{rank:05d}.jsonl").write_bytes(data)
        size += len(data)
    end = {
        "t": start + 4e5,
        "attempt": 0,
        "cause": "done",
        "exit_code": 0,
        "signal": None,
        "failed_rank": None,
        "failed_host": None,
        "error": None,
        "first_step": 1,
        "last_step": windows * STEPS_A_WINDOW,
        "will_restart": False,
    }
    (attempt / "end.json").write_text(json.dumps(end))
    return size


def log(variant: int, windows: int, ranks: int, start: float) -> bytes:
    """A log whose windows differ a little in time, from each other and from other variants'."""
    lines = [
        f'{{"kind":"rank_start","t":{start + 1},"rank":0,"attempt":0,"world_size":{ranks},'
        '"host":"n000","local_rank":0,"pid":4242,"cpus":[0,1,2,3],"accelerator":null,'
        '"resumed_from":null,"epoch":0,"step":0}\n'
    ]
    t = start + 1
    for window in range(1, windows + 1):
        seconds = 3.3 + 0.01 * ((window * 7 + variant * 3) % 17) + 0.0000123 * variant
        t += seconds
        lines.append(
            f'{{"kind":"steps","t":{t:.6f},"rank":0,"epoch":{window // 100},'
            f'"step":{window * STEPS_A_WINDOW},"count":{STEPS_A_WINDOW},"images":40,'
            f'"seconds":{seconds:.9f},"wait_data":0.0012345678,"comm":0.0123456789,'
            f'"loss":{2 / window:.9f},"learning_rate":0.0449871234}}\n'
        )
    lines.append(
        f'{{"kind":"rank_end","t":{t},"rank":0,"status":"done",'
        f'"step":{windows * STEPS_A_WINDOW},"error":null}}\n'
    )
    return "".join(lines).encode()


def json_loads(run: Path) -> float:
    """Seconds that `json.loads` takes for the lines of some logs."""
    files = sorted((run / "attempts" / "000" / "ranks").iterdir())[:SAMPLE]
    start = time.perf_counter()
    for file in files:
        with file.open("rb") as lines:
            for line in lines:
                json.loads(line)
    return time.perf_counter() - start


def measured(command: list[str]) -> tuple[float, float, str]:
    """Seconds, peak megabytes of all its processes together, and what a program printed."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    peak = [0]
    watcher = threading.Thread(target=watch, args=(process, peak))
    watcher.start()
    printed, _ = process.communicate()
    seconds = time.perf_counter() - start
    watcher.join()
    if process.returncode != 0:
        sys.exit(f"{command} ended with {process.returncode}")
    return seconds, peak[0] / 1e6, printed


def processor_seconds() -> float:
    """Processor time of all processes that were waited for so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def watch(process: subprocess.Popen[str], peak: list[int]) -> None:
    """Notes the most bytes that the processes of the session of `process` held at once."""
    while process.poll() is None:
        peak[0] = max(peak[0], session_memory(process.pid))
        time.sleep(0.1 if peak[0] else 0.01)


def session_memory(session: int) -> int:
    total = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # pid (name) state ppid pgrp session …; the name may hold anything but its last `)`
            stat = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(stat[3]) == session:
                total += int((entry / "statm").read_text().split()[1]) * 4096
        except (OSError, IndexError, ValueError):
            continue  # it ended meanwhile
    return total


if __name__ == "__main__":
    main()
