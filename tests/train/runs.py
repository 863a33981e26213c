"""Makes run directories as the supervisor does, and runs their ranks without it."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from clusterseg.runs.choice import newest_acceptable
from clusterseg.runs.eventlog import iter_events
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Claim, Steps
from clusterseg.spec.model import JobSpec

BIN = Path(sys.executable).parent
RANK = (
    "import sys; from pathlib import Path; from clusterseg.train.rank import run;"
    "sys.exit(run(Path(sys.argv[1])))"
)


def job(data: Path, **train: Any) -> dict[str, Any]:
    """A small job as plain values: 36 training and 10 validation pictures of 32x48 pixels."""
    return {
        "name": "test",
        "train": {
            "model": {"name": "fastscnn", "options": {"width": 0.25}},
            "data": {"format": "camvid", "root": str(data), "size": [32, 48]},
            "augment": [{"flip_horizontal": 0.5}],
            "optimizer": {"name": "sgd", "learning_rate": 0.02},
            "schedule": {"name": "polynomial", "warmup_epochs": 0.5},
            "epochs": 3,
            "batch_size": 4,
            "deterministic": True,
            **train,
        },
        "checkpoint": {"every": {"seconds": 1000.0}},
    }


@dataclass
class Run:
    """One run directory; `attempt` is claimed anew for every start. `plan`: more of plan.json."""

    root: Path
    spec: dict[str, Any]
    ranks: int = 1
    communicator: str = "solo"
    attempt: int = -1
    claims: list[Claim] = field(default_factory=list)
    plan: dict[str, Any] = field(default_factory=dict)

    @property
    def paths(self) -> RunPaths:
        return RunPaths(self.root)

    def claim(self) -> Claim:
        paths = self.paths
        for folder in (paths.submission(0).folder, paths.control, paths.checkpoints):
            folder.mkdir(parents=True, exist_ok=True)
        spec = msgspec.convert(self.spec, JobSpec)
        plan = {"communicator": self.communicator, "spec": spec, **self.plan}
        paths.submission(0).plan.write_bytes(msgspec.json.encode(plan))
        choice = newest_acceptable(paths, self.claims[-1] if self.claims else None)
        self.attempt += 1
        claim = Claim(
            t=0.0, attempt=self.attempt, submission=0, key="k", uid=os.getuid(), job_id="local",
            host="h", boot_id="b", pid=1, pid_start=1, nonce="n", hosts={"h": self.ranks},
            ranks=self.ranks, argv=[], accepted=choice.accepted,
            resume_from=choice.newest.name if choice.newest else None,
            resume_step=choice.newest.header.step if choice.newest else 0,
        )  # fmt: skip
        attempt = paths.attempt(self.attempt)
        attempt.ranks.mkdir(parents=True)
        attempt.claim.write_bytes(msgspec.json.encode(claim))
        paths.stop_file(self.attempt).touch()
        self.claims.append(claim)
        return claim

    def start(self, **environment: str) -> subprocess.Popen[bytes]:
        """Claims the next attempt and starts its ranks, with mpirun unless they are solo."""
        self.claim()
        return self.launch(**environment)

    def launch(self, **environment: str) -> subprocess.Popen[bytes]:
        """Starts the ranks of the attempt that was claimed last."""
        variables = {
            **os.environ,
            "CLUSTERSEG_RUN_DIR": str(self.root),
            "CLUSTERSEG_ATTEMPT": str(self.attempt),
            "CLUSTERSEG_STOP_FILE": str(self.paths.stop_file(self.attempt)),
            "OMP_NUM_THREADS": "1",
            # As the supervisor does: mpirun does not start where one of its id was killed.
            "PRTE_MCA_prte_local_tmpdir_base": _mpirun_folder(),
            **environment,
        }
        rank = [sys.executable, "-c", RANK, str(self.root)]
        return subprocess.Popen([*self._launcher(), *rank], env=variables)

    def run(self, **environment: str) -> int:
        return self.start(**environment).wait()

    def _launcher(self) -> list[str]:
        if self.communicator == "solo":
            return []
        # oversubscribe: the machine that runs the tests may have a single core
        mpirun = [str(BIN / "mpirun"), "-np", str(self.ranks), "--map-by", ":OVERSUBSCRIBE"]
        mpirun += ["--bind-to", "none", "--mca", "mpi_yield_when_idle", "1"]
        return [*mpirun, *(["--allow-run-as-root"] if os.getuid() == 0 else [])]

    def events(self, rank: int = 0, attempt: int | None = None) -> list[Any]:
        """Of the last attempt if none is given; none before the rank has opened its file."""
        number = self.attempt if attempt is None else attempt
        path = self.paths.attempt(number).events(rank)
        return list(iter_events(path)) if path.exists() else []

    def log(self, rank: int = 0) -> str:
        return self.paths.attempt(self.attempt).log(rank).read_text()

    def windows(self, rank: int = 0, attempt: int | None = None) -> list[Steps]:
        return [one for one in self.events(rank, attempt) if isinstance(one, Steps)]


def _mpirun_folder() -> str:
    """Not beside the run, whose disk a test may have filled; gone when the tests end."""
    folder = tempfile.mkdtemp(prefix="mpirun-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
