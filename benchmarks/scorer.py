"""A program that scores the files it is told, as `bench_score.py` measures it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

Lists = tuple[list[str], list[str]]  # predictions, ground truths


class Process:
    """A scorer on the first core; lists go in as lines of JSON, results come out."""

    def __init__(self, command: list[str], key: str) -> None:
        self._key = key
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        os.sched_setaffinity(self._process.pid, {min(os.sched_getaffinity(0))})

    def __enter__(self) -> Process:
        return self

    def score(self, lists: Lists) -> float:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(lists) + "\n")
        self._process.stdin.flush()
        return float(json.loads(self._process.stdout.readline())[self._key])

    def spent(self) -> float:
        """Seconds of a processor that it has used so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # user, system

    def peak(self) -> float:
        """Megabytes that it has needed at most."""
        status = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        (line,) = (line for line in status if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1e3

    def __exit__(self, *error: object) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()
