"""Reading with several processes, and with little memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest

from clusterseg.cluster import processes
from clusterseg.collect import reading
from clusterseg.runs.paths import RunPaths
from tests.collect.hand import claim, end, log, start, summary, window


def make_run(run: Path, ranks: int, windows: int) -> Path:
    claim(run, 0, 0, ranks=ranks)
    events = [window(float(n), n, 1, 1.0) for n in range(1, windows + 1)]
    for rank in range(ranks):
        log(run, 0, rank, start(0.0), *events)
    end(run, 0, windows + 1.0, "done")
    return run


def peak(run: Path) -> int:
    """Most bytes held at once while a run is collected."""
    tracemalloc.start()
    try:
        summary(run)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_follow_the_number_of_ranks(tmp_path: Path) -> None:
    few = peak(make_run(tmp_path / "few", ranks=2, windows=3000))
    many = peak(make_run(tmp_path / "many", ranks=40, windows=3000))
    assert many < few + 40 * 5000  # far less than the 120 kB of one rank's windows


def test_where_no_pool_can_be_made_one_process_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_semaphores(*_: object, **__: object) -> None:
        raise OSError(38, "Function not implemented")

    run = make_run(tmp_path / "run", ranks=3, windows=5)
    expected = summary(run)
    monkeypatch.setattr(reading, "PIECE", 1)
    monkeypatch.setattr(reading, "WORTH_A_PROCESS", 0)
    monkeypatch.setattr("concurrent.futures.ProcessPoolExecutor", no_semaphores)
    assert summary(run) == expected


ORPHANING = """
import multiprocessing, os, signal, sys
from pathlib import Path
from clusterseg.collect import reading
from clusterseg.runs.attempts import read_attempt
from clusterseg.runs.paths import RunPaths

attempt = read_attempt(RunPaths(Path(sys.argv[1])).attempt(0))
pieces = [reading.Piece(attempt, (rank,), None, 1) for rank in range(4)]
with reading._mapped(pieces, 2) as readings:
    next(readings)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_readers_end_with_a_killed_parent(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ranks=4, windows=5)
    program = [sys.executable, "-c", ORPHANING, str(run)]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    readers = [int(pid) for pid in done.stdout.split()]
    assert len(readers) == 2
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in readers):
        assert time.monotonic() < deadline, "readers outlive their parent"
        time.sleep(0.05)


def test_a_run_of_a_living_supervisor_has_no_cause_yet(tmp_path: Path) -> None:
    """This process claims to be the supervisor."""
    run = make_run(tmp_path / "run", ranks=1, windows=5)
    (run / "attempts" / "000" / "end.json").unlink()
    me = processes.this_process()
    record = run / "attempts" / "000" / "claim.json"
    text = record.read_text()
    for old, new in (
        ('"host": "n0"', f'"host": "{me.host}"'),
        ('"boot_id": "b"', f'"boot_id": "{me.boot_id}"'),
        ('"pid": 1', f'"pid": {os.getpid()}'),
        ('"pid_start": 1', f'"pid_start": {me.start}'),
    ):
        assert old in text
        text = text.replace(old, new, 1)
    record.write_text(text)
    from clusterseg.cli.collect_commands import _collect

    found = _collect(RunPaths(run), timeline=False).summary
    assert (found.state, found.attempts[0].cause, found.missing) == ("running", None, [])
