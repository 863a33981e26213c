"""A real Slurm for tests: wraps `slurm/devcluster/devcluster` and the commands around a job.

The fixtures are in tests/conftest.py: `slurm_cluster`, `slurm_cluster_signal` (shared, 4 nodes of
2 cores, partitions `low` and `high`) and `make_devcluster(...)` for one of your own.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TOOL = Path(__file__).resolve().parent.parent / "slurm" / "devcluster" / "devcluster"
# devcluster's exit code where a machine can't have a cluster.
UNABLE = 3
# States after which a job does not go on by itself.
ENDED = frozenset(
    [
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "TIMEOUT",
    ]
)
_SESSION_NAME = re.compile(r"t(\d+)-[a-z0-9-]+")


class Unable(Exception):
    """This machine can't have a cluster; the message says why."""


@dataclass(frozen=True)
class DevCluster:
    """A running cluster. Commands get `environ`, never the environment of an outer job."""

    name: str
    slurm_conf: Path
    nodes: tuple[str, ...]

    @classmethod
    def start(
        cls,
        name: str,
        *,
        nodes: int = 4,
        cores: int = 2,
        accounting: bool = False,
        preempt_signal: bool = False,
        conf: Sequence[str] = (),
    ) -> DevCluster:
        """Brings it up; raises Unable where it can't be, AssertionError where it fails."""
        argv = ["up", "--name", name, "--nodes", str(nodes), "--cores", str(cores)]
        argv += ["--accounting"] * accounting + ["--preempt-signal"] * preempt_signal
        argv += [word for setting in conf for word in ("--conf", setting)]
        done = tool(*argv)
        if done.returncode == UNABLE:
            raise Unable(done.stderr.strip().removeprefix("error: ").replace("\n", "; "))
        assert done.returncode == 0, done.stdout + done.stderr
        (status,) = json.loads(tool("status", "--json", "--name", name).stdout)["clusters"]
        return cls(name, Path(status["slurm_conf"]), tuple(status["nodes"]))

    def stop(self) -> None:
        stop(self.name)

    # What a login node has.

    @property
    def environ(self) -> dict[str, str]:
        """A whole environment for subprocesses, with this Python's folder first on the PATH."""
        own = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_"))}
        folder = str(Path(sys.executable).parent)
        return {
            **own,
            "SLURM_CONF": str(self.slurm_conf),
            "PATH": os.pathsep.join([folder, own.get("PATH", os.defpath)]),
        }

    @property
    def jobs(self) -> Path:
        """A folder for jobs that need none of their own; it goes with the cluster."""
        return self.slurm_conf.parent.parent / "jobs"

    @property
    def status(self) -> dict[str, Any]:
        """What `devcluster status --json` says: state, options, daemons, nodes, logs, …"""
        done = tool("status", "--json", "--name", self.name)
        (status,) = json.loads(done.stdout)["clusters"]
        assert isinstance(status, dict)
        return status

    def run(
        self,
        *argv: str | Path,
        check: bool = True,
        timeout: float = 60,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str = "",
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command as on the login node; `env` is added to `environ`."""
        done = subprocess.run(
            [str(word) for word in argv],
            env={**self.environ, **(env or {})},
            cwd=cwd,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{argv} ended with {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    # Jobs.

    def sbatch(self, *arguments: str | Path, script: str = "", cwd: Path | None = None) -> int:
        """Submits (`script` is given on stdin, where there is one) and returns the job's id.

        Without `cwd` it is submitted from, and writes its slurm-<id>.out to, `self.jobs`.
        """
        self.jobs.mkdir(exist_ok=True)
        said = self.run("sbatch", "--parsable", *arguments, stdin=script, cwd=cwd or self.jobs)
        return int(said.stdout.split(";")[0])

    def squeue(self, *arguments: str) -> list[str]:
        """The lines of `squeue -h`, without jobs that have ended."""
        return self.run("squeue", "-h", *arguments).stdout.splitlines()

    def scontrol(self, *arguments: str) -> str:
        return self.run("scontrol", *arguments).stdout

    def job(self, job: int | str) -> dict[str, str]:
        """The fields of `scontrol show job`: JobState, Restarts, BatchHost, ExitCode, Reason, …"""
        return _fields(self.scontrol("-o", "show", "job", str(job)))

    def node(self, node: str) -> dict[str, str]:
        """The fields of `scontrol show node`; State is e.g. IDLE, ALLOCATED or DOWN*."""
        return _fields(self.scontrol("-o", "show", "node", node))

    def wait_until(
        self, job: int | str, states: str | Collection[str] = ENDED, *, timeout: float = 60
    ) -> dict[str, str]:
        """The job's fields as soon as its state is one of `states` (any end of it, if not given).

        Fails at once when the job has ended in another state.
        """
        wanted = {states} if isinstance(states, str) else set(states)
        deadline = time.monotonic() + timeout
        while (fields := self.job(job))["JobState"] not in wanted:
            state = fields["JobState"]
            assert state not in ENDED, f"job {job} is {state}, not {sorted(wanted)}: {fields}"
            assert time.monotonic() < deadline, (
                f"job {job} is {state} ({fields.get('Reason')}) after {timeout} s, "
                f"not {sorted(wanted)}"
            )
            time.sleep(0.2)
        return fields

    def wait_until_node(self, node: str, states: str, *, timeout: float = 60) -> str:
        """Waits until the node's state matches the pattern `states`; returns it."""
        deadline = time.monotonic() + timeout
        while not re.fullmatch(states, state := self.node(node)["State"]):
            assert time.monotonic() < deadline, f"{node} is {state} after {timeout} s, not {states}"
            time.sleep(0.2)
        return state

    def told(self, job: int | str) -> list[str]:
        """What slurmctld and the slurmds wrote of a job into their logs, for a failed assertion."""
        named = re.compile(rf"(?i)\bjob(?:id)?[= ]{job}\b|StepId={job}\b")
        return [
            f"{log.name}: {line}"
            for log in sorted((self.slurm_conf.parent.parent / "log").glob("*.log"))
            for line in log.read_text(errors="replace").splitlines()
            if named.search(line)
        ]

    # Faults.

    def fault(self, where: str, what: str) -> None:
        """`where`: a node or "controller"; `what`: see `devcluster fault --help`."""
        done = tool("fault", "--name", self.name, where, what)
        assert done.returncode == 0, done.stdout + done.stderr

    @contextlib.contextmanager
    def broken(self, where: str, breaking: str, mending: str) -> Iterator[None]:
        """`with cluster.broken("n2", "cut", "join"): …`"""
        self.fault(where, breaking)
        try:
            yield
        finally:
            self.fault(where, mending)

    def on_node(
        self, node: str, *argv: str | Path, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command on a node, in its network and mounts; does not judge its exit code."""
        words = [str(word) for word in argv]
        return tool("exec", "--name", self.name, node, "--", *words, timeout=timeout)

    def clean(self) -> None:
        """Mends every fault, ends every job and its processes, and waits for idle nodes."""
        self._on_all("mend")
        start = asked = time.monotonic()
        self._cancel_all()
        while not self._is_idle():
            now = time.monotonic()
            assert now < start + 60, f"left behind: {self._said('squeue')} {self._said('sinfo')}"
            if now > asked + 1:
                asked = now
                self._cancel_all()
                # What slurmctld has forgotten, or can't end.
                self._on_all("kill-jobs")
            time.sleep(0.1)
        self._on_all("kill-jobs")

    def _cancel_all(self) -> None:
        """Ends jobs as hard as can be (one that traps TERM would take its KillWait)."""
        me = ["--user", str(os.getuid())]
        self._said("scancel", *me, "--state=PENDING")
        self._said("scancel", *me, "--state=RUNNING", "--signal=KILL", "--full")
        self._said("scancel", *me)

    def _is_idle(self) -> bool:
        """No job and only idle nodes; those that were down are told to come back."""
        nodes = [line.split() for line in self._said("sinfo", "-h", "-N", "-plow", "-o%N %t")]
        for name, state in (words for words in nodes if len(words) == 2):
            if state.startswith(("down", "drain", "drng", "fail")):
                self._said("scontrol", "update", f"nodename={name}", "state=resume")
        states = [words[-1] for words in nodes]
        return states == ["idle"] * len(self.nodes) and self._said("squeue", "-h") == []

    def _on_all(self, what: str) -> None:
        tool("fault", "--name", self.name, "all", what)

    def _said(self, *argv: str) -> list[str]:
        done = self.run(*argv, check=False)
        return done.stdout.splitlines() if done.returncode == 0 else ["no answer"]


def tool(*argv: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Runs devcluster itself."""
    return subprocess.run(
        [TOOL, *argv],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def stop(name: str) -> None:
    """Takes a cluster down, whole or half started; one that never was is fine too."""
    done = tool("down", "--name", name)
    assert done.returncode == 0, done.stdout + done.stderr


def session_name(what: str) -> str:
    """A name that no other test session has: `what` has at most 7 characters."""
    return f"t{os.getpid()}-{what}"


def remove_stale() -> None:
    """Takes down what killed test sessions left."""
    done = tool("status", "--json")
    names = [cluster["name"] for cluster in json.loads(done.stdout or "{}").get("clusters", [])]
    for name in names:
        match = _SESSION_NAME.fullmatch(name)
        if match and not Path(f"/proc/{match[1]}").exists():
            tool("down", "--name", name)


def _fields(line: str) -> dict[str, str]:
    """Slurm's "Key=Value Key=Value"; a value that holds blanks is cut at the first."""
    return dict(word.split("=", 1) for word in line.split() if "=" in word)
