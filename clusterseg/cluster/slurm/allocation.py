"""What a process inside of a Slurm job knows of it: from its environment, and by asking.

The restart count says which life of the job this is, never the number of an attempt: after a
crash of the controller a job can run a second time with count 0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from msgspec import Struct

from clusterseg import hostlist
from clusterseg.cluster.slurm.commands import Slurm
from clusterseg.cluster.slurm.jobs import JobState, job_state
from clusterseg.errors import ClustersegError, ExitCode

ARRAY, TASK = "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"
_NUMBER = re.compile(r"\d{1,18}")
# Slurm's words for a node that can't work; one that drains goes on with its jobs.
_LOST = ("DOWN", "FAIL", "ERROR", "NOT_RESPONDING", "POWERED_DOWN", "REBOOT_ISSUED")


class Allocation(Struct, frozen=True, kw_only=True):
    """A job as its own environment has it.

    `job_id` is what Slurm's commands take: "12", or "12_3" for a task of an array, where the
    bare number would mean all of it. `tasks` and `cpus` are by host, in Slurm's order; `cpus`,
    which counts hardware threads, is empty where Slurm says nothing of them.
    """

    job_id: str
    number: int
    restart_count: int
    tasks: dict[str, int]
    cpus: dict[str, int]
    partition: str = ""

    @property
    def hosts(self) -> list[str]:
        return list(self.tasks)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Allocation | None:
        """The job that these variables tell of; None outside of one.

        Raises ClustersegError if they contradict each other.
        """
        number = environ.get("SLURM_JOB_ID", "")
        nodes = environ.get("SLURM_JOB_NODELIST") or environ.get("SLURM_NODELIST", "")
        if not _NUMBER.fullmatch(number) or not nodes:
            return None
        try:
            hosts = hostlist.expand(nodes)
            counts = environ.get("SLURM_JOB_CPUS_PER_NODE", "")
            cpus = _by_host(hosts, counts) if counts else {}
            tasks = _by_host(hosts, environ.get("SLURM_TASKS_PER_NODE", ""))
        except ValueError as error:
            raise ClustersegError(
                f"the variables of Slurm job {number} make no sense: {error}",
                code="bad-allocation",
                exit_code=ExitCode.CLUSTER,
            ) from None
        restarts = environ.get("SLURM_RESTART_COUNT", "")
        return cls(
            job_id=_own_id(environ, number),
            number=int(number),
            restart_count=int(restarts) if _NUMBER.fullmatch(restarts) else 0,
            tasks=tasks,
            cpus=cpus,
            partition=environ.get("SLURM_JOB_PARTITION", ""),
        )


class Life(Struct, frozen=True):
    """One life of a job in the accounting: from a start to the requeue or end that followed."""

    state: JobState
    started: str
    node: str = ""


def lost_nodes(slurm: Slurm, hosts: Sequence[str]) -> list[str]:
    """Those of `hosts` that Slurm calls down or does not hear from. Raises SlurmError."""
    if not hosts:
        return []
    said = slurm.run("scontrol", "-o", "show", "node", hostlist.compress(hosts))
    return read_lost_nodes(said.splitlines())


def read_lost_nodes(lines: Sequence[str]) -> list[str]:
    """The lost nodes in lines of `scontrol -o show node`."""
    lost = []
    for line in lines:
        name = re.match(r"NodeName=(\S+)", line)
        state = re.search(r"\bState=(\S+)", line)
        if name is None or state is None:
            continue
        # "IDLE+DRAIN+NOT_RESPONDING", or with a star: "DOWN*" does not respond.
        if state[1].endswith("*") or set(state[1].rstrip("*").split("+")) & set(_LOST):
            lost.append(name[1])
    return lost


def steps(slurm: Slurm, job_id: str) -> list[str]:
    """The steps of a job that run, "12.0"; not the batch script's own. Raises SlurmError."""
    said = slurm.run("squeue", "--all", "--steps", "--jobs", job_id, "-h", "-o", "%i")
    return [line for line in said.split() if re.fullmatch(r"[\d_]+\.\d+", line)]


def end_steps(slurm: Slurm, ids: Sequence[str]) -> None:
    """Ends steps on all of their nodes. Raises SlurmError."""
    if ids:
        slurm.cancel(*ids)


def earlier_lives(slurm: Slurm, job_id: str) -> list[Life]:
    """The lives of a job that are over, oldest first. Raises SlurmError.

    SlurmRefused or SlurmMissing where there is no accounting.
    """
    # Without -D sacct hides what came before the last requeue.
    fields = "--format=JobID,State,Start,NodeList"
    said = slurm.run("sacct", "-D", "-X", "-n", "-P", "-j", job_id, fields)
    return read_lives(said.splitlines(), job_id)


def read_lives(lines: Sequence[str], job_id: str) -> list[Life]:
    """The lives in lines of sacct (JobID|State|Start|NodeList) that are over."""
    found = []
    for line in lines:
        fields = line.split("|")
        if len(fields) != 4 or fields[0] != job_id:
            continue
        state = job_state(fields[1])
        if state not in (JobState.RUNNING, JobState.PENDING, JobState.UNKNOWN):
            found.append(Life(state, fields[2], fields[3]))
    return sorted(found, key=lambda life: life.started)


def partition_size(slurm: Slurm, partition: str) -> int | None:
    """How many nodes a partition has; None if Slurm does not say. Raises SlurmError."""
    said = slurm.run("scontrol", "-o", "show", "partition", partition)
    found = re.search(r"\bTotalNodes=(\d+)", said)
    return int(found[1]) if found else None


def _own_id(environ: Mapping[str, str], number: str) -> str:
    array, task = environ.get(ARRAY, ""), environ.get(TASK, "")
    if _NUMBER.fullmatch(array) and _NUMBER.fullmatch(task):
        return f"{array}_{task}"
    return number


def _by_host(hosts: Sequence[str], text: str) -> dict[str, int]:
    """Counts by host; 1 each where Slurm says nothing."""
    numbers = hostlist.counts(text) if text else [1] * len(hosts)
    if len(numbers) != len(hosts):
        raise ValueError(f"{len(hosts)} hosts, but {len(numbers)} counts in {text!r}")
    return dict(zip(hosts, numbers, strict=True))
