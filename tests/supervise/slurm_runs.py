"""Runs of the light rank program on a real Slurm: submitted, disturbed, looked at."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusterseg.cluster.processes import start_ticks
from clusterseg.runs.eventlog import iter_events
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Event, Steps, Stop
from tests.devcluster import DevCluster
from tests.supervise.runs import PROGRAM

LAUNCHERS = ("srun", "openmpi5")


@dataclass(frozen=True)
class SlurmRun:
    """A submitted run."""

    cluster: DevCluster
    run: RunPaths
    job: str

    @classmethod
    def submit(
        cls,
        cluster: DevCluster,
        folder: Path,
        *program: str,
        launcher: str = "srun",
        nodes: int = 2,
        per_node: int = 1,
        **keys: Any,
    ) -> SlurmRun:
        """`clusterseg submit` of `rank_program.py program…`."""
        job = folder / "job.yaml"
        resources = {
            "nodes": nodes,
            "ranks_per_node": per_node,
            "time": "10:00",
            "cpus_per_rank": 1,
        }
        text = {
            "name": "t",
            "command": [sys.executable, str(PROGRAM), *program],
            "resources": {**resources, "time": "10:00", **keys.pop("resources", {})},
            "slurm": {"partition": "low", **keys.pop("slurm", {})},
            "scheduler": "slurm",
            "launcher": launcher,
            **keys,
        }
        job.write_text(json.dumps(text))
        said = cluster.run("clusterseg", "submit", "--json", job, cwd=folder)
        answer = json.loads(said.stdout)
        return cls(cluster, RunPaths(Path(answer["run_dir"])), answer["job_id"])

    def until(self, condition: Callable[[], object], what: str, seconds: float = 60) -> None:
        until = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < until, f"waited in vain until {what}\n{self.story()}"
            time.sleep(0.1)

    def until_steps(self, attempt: int = 0, ranks: int = 2, seconds: float = 60) -> None:
        """Until every rank of an attempt has done a step."""
        files = [self.run.attempt(attempt).events(rank) for rank in range(ranks)]
        self.until(
            lambda: all(file.exists() and '"steps"' in file.read_text() for file in files),
            f"attempt {attempt} steps",
            seconds,
        )

    def until_end(self, attempt: int, seconds: float = 60) -> dict[str, Any]:
        """end.json of an attempt, as soon as there is one."""
        path = self.run.attempt(attempt).end
        self.until(path.exists, f"attempt {attempt} ends", seconds)
        return json.loads(path.read_bytes())  # type: ignore[no-any-return]

    def until_done(self, seconds: float = 90) -> list[dict[str, Any]]:
        """All ends (None: killed), when the last one is done."""
        self.until(lambda: "done" in self.causes()[-1:], "it is done", seconds)
        return self.ends()

    def claim(self, attempt: int) -> dict[str, Any]:
        return json.loads(self.run.attempt(attempt).claim.read_bytes())  # type: ignore[no-any-return]

    def ends(self) -> list[dict[str, Any]]:
        found = []
        for folder in sorted(self.run.attempts.iterdir()):
            end = folder / "end.json"
            found.append(json.loads(end.read_bytes()) if end.exists() else {})
        return found

    def causes(self) -> list[str | None]:
        return [end.get("cause") for end in self.ends()] if self.run.attempts.exists() else []

    def first_steps(self) -> list[int | None]:
        return [end.get("first_step") for end in self.ends()]

    def stopped_at(self, attempt: int = 0) -> list[int]:
        """The step at which each of two ranks stopped, by its own word."""
        return [event.step for event in self._events(attempt) if isinstance(event, Stop)]

    def done_by_all(self, attempt: int = 0) -> int:
        """The last step that both of two ranks have done."""
        last: dict[int, int] = {}
        for event in self._events(attempt):
            if isinstance(event, Steps):
                last[event.rank] = event.step
        return min(last.values())

    def _events(self, attempt: int) -> Iterator[Event]:
        for rank in (0, 1):
            yield from iter_events(self.run.attempt(attempt).events(rank))

    def status(self) -> dict[str, Any]:
        said = self.cluster.run("clusterseg", "status", "--json", self.run.root)
        return json.loads(said.stdout)  # type: ignore[no-any-return]

    def preempt(self, nodes: int = 4, seconds: int = 1) -> int:
        """A job of higher priority that wants all nodes."""
        options = ("-p", "high", f"--nodes={nodes}", "--exclusive", "-o", "/dev/null")
        return self.cluster.sbatch(*options, "--wrap", f"sleep {seconds}")

    def supervisor(self, attempt: int = 0) -> int:
        """The process id in the claim, which is this machine's: nodes share its process ids."""
        pid = int(self.claim(attempt)["pid"])
        assert start_ticks(pid) == self.claim(attempt)["pid_start"]
        return pid

    def children(self, pid: int) -> list[int]:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def left(self, attempt: int | None = None) -> list[int]:
        """Processes of this run, or of one attempt, on whatever node."""
        wanted = {f"CLUSTERSEG_RUN_DIR={self.run.root}".encode()}
        if attempt is not None:
            wanted.add(f"CLUSTERSEG_ATTEMPT={attempt}".encode())
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if not entry.name.isdigit():
                    continue
                if wanted <= set((entry / "environ").read_bytes().split(b"\0")):
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    def story(self) -> str:
        """What the job printed and Slurm says, for a failed assertion."""
        output = self.run.submission(0).folder / "output.log"
        said = output.read_text() if output.exists() else "no output"
        log = "\n".join(
            path.read_text(errors="replace")[-3000:]
            for path in sorted(self.run.attempts.glob("*/supervisor.log"))
        )
        queue = self.cluster.run("squeue", "-a", check=False).stdout
        return f"{said}\n{log}\n{queue}\n{self.causes()}"
