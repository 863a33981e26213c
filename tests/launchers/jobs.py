"""Jobs of small MPI programs, from job.yaml by submit, batch script and supervisor to the ranks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from clusterseg.runs.paths import RunPaths
from tests.launchers.hosts import Hosts, network_alone
from tests.supervise.runs import end_of, ranks_of, wait_until

PROGRAM = Path(__file__).with_name("rank.py")


@dataclass(frozen=True)
class Mpi:
    """An MPI of a test: the launcher that it is for clusterseg, and where it is found."""

    name: str
    launcher: str
    library: str  # how its libmpi begins to say what it is
    folder: str  # of its mpirun
    under: Sequence[str] = ()  # the words that make it visible to a command


@dataclass
class Job:
    """A job in a folder of its own. `keys` are further ones of its job.yaml."""

    mpi: Mpi
    folder: Path
    act: str = "report"
    words: Sequence[str] = ()
    ranks: int = 2
    hosts: Hosts | None = None
    counts: Sequence[int] = ()  # of the ranks on `hosts`, else all are on this host
    variables: Mapping[str, str] = field(default_factory=dict)
    inherited: Mapping[str, str] = field(default_factory=dict)
    keys: Mapping[str, Any] = field(default_factory=dict)

    def write(self) -> Path:
        """Its job.yaml."""
        self.reports.mkdir(parents=True)
        command = [sys.executable, str(PROGRAM), str(self.reports), self.act, *self.words]
        resources: dict[str, Any] = {"nodes": 1, "ranks_per_node": self.ranks}
        job: dict[str, Any] = {"name": "t", "scheduler": "local", "launcher": self.mpi.launcher}
        if self.hosts is not None:
            resources = {"hosts": dict(zip(self.hosts.names, self.counts, strict=True))}
            job["launcher_args"] = self.hosts.launcher_args(self.mpi.launcher)
        resources["cpus_per_rank"] = 1
        job |= {"resources": resources, "restart": {"crash": 0}, **self.keys}
        job["command"] = [literal(word) for word in command]
        job["environment"] = {
            "variables": {name: literal(value) for name, value in self.variables.items()}
        }
        file = self.folder / "job.yaml"
        file.write_text(yaml.safe_dump(job, allow_unicode=False, width=10**6))
        return file

    @property
    def reports(self) -> Path:
        return self.folder / "ranks"

    @contextmanager
    def started(self) -> Iterator[subprocess.Popen[str]]:
        """`submit --wait` of it, once its ranks have all met. Whatever is left is an error."""
        file = self.write()
        environ = {
            **{name: os.environ[name] for name in ("HOME", "TMPDIR") if name in os.environ},
            "PATH": os.pathsep.join((self.mpi.folder, "/usr/bin", "/bin")),
            "CLUSTERSEG_RUNS": str(self.folder / "runs"),
            "CLUSTERSEG_CONFIG": str(self.folder / "config"),
            **self.inherited,
        }
        clusterseg = (sys.executable, "-m", "clusterseg.cli.main")
        process = subprocess.Popen(
            [*network_alone(), *self.mpi.under, *clusterseg, "submit", str(file), "--wait"],
            env=environ,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield process
            process.wait(60)
            wait_until(lambda: not ranks_of(self.run), "all ranks have ended", 10)
        finally:
            process.kill()
            process.wait()
            if any((self.folder / "runs").glob("*")):
                for left in ranks_of(self.run):  # of a test that failed
                    os.kill(left, signal.SIGKILL)
            if process.stdout is not None:
                process.stdout.close()

    def done(self) -> list[dict[str, Any]]:
        """Submits it, and waits for a good end; what the ranks saw, by rank."""
        code, said = self.ended()
        assert code == 0, f"{said}\n{self.account()}"
        return self.seen()

    def ended(self) -> tuple[int, str]:
        """Submits it, and waits for its end: the run's exit code, and what was said."""
        with self.started() as process:
            try:
                said, _ = process.communicate(timeout=60)
            except subprocess.TimeoutExpired as error:
                raise AssertionError(
                    f"no end in 60 s\n{self.account()}\n{self.processes()}"
                ) from error
        return process.returncode, said

    def seen(self) -> list[dict[str, Any]]:
        files = sorted(self.reports.glob("*.json"), key=lambda file: int(file.stem))
        return [json.loads(file.read_text()) for file in files]

    @property
    def run(self) -> RunPaths:
        (folder,) = (self.folder / "runs").iterdir()
        return RunPaths(folder)

    def claim(self) -> dict[str, Any]:
        return json.loads(self.run.attempt(0).claim.read_bytes())  # type: ignore[no-any-return]

    def end(self) -> dict[str, Any]:
        return end_of(self.run, 0)

    def account(self) -> str:
        """What the supervisor noted, and the ranks printed."""
        attempt = self.run.attempt(0)
        files = [attempt.supervisor_log, *sorted(attempt.log(0).parent.glob("*.log"))]
        return "\n".join(file.read_text(errors="replace") for file in files if file.exists())

    def processes(self) -> str:
        """What runs for it, as a tree, and where in the kernel it waits."""
        tree = ["ps", "f", "-o", "pid,ppid,stat,wchan:30,etimes,args", "-p"]
        ours = ",".join(str(process) for process in ranks_of(self.run))
        return subprocess.run([*tree, ours], capture_output=True, text=True, check=False).stdout


def cores_here() -> set[frozenset[int]]:
    """The processors of each core that this process may use, as ranks report them."""
    ours = os.sched_getaffinity(0)
    return {frozenset(_siblings(cpu) & ours) for cpu in ours}


def _siblings(cpu: int) -> set[int]:
    """The processors that share a core with `cpu`, from a list like `0,4-5`."""
    file = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    if not file.exists():
        return {cpu}
    parts = (part.partition("-") for part in file.read_text().strip().split(","))
    return {n for first, _, last in parts for n in range(int(first), int(last or first) + 1)}


def literal(text: str) -> str:
    """`text` as a value of job.yaml that stands for itself."""
    return text.replace("${", "$${")
