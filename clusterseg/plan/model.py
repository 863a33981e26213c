"""The plan: the very request that `submit` executes, and what `render` prints.

Host names and the run directory may be symbolic: `{run_dir}`, `{hostfile}` and host names such
as `{host0}` are filled in by `clusterseg.plan.planner.fill` when they are known.
"""

from __future__ import annotations

from msgspec import Struct

from clusterseg.spec.model import JobSpec

RUN_DIR = "{run_dir}"
HOSTFILE = "{hostfile}"


class Host(Struct, frozen=True, kw_only=True):
    """A host as the planner sees it: its usable physical cores and its sockets."""

    name: str
    cores: int
    sockets: int = 1
    threads_per_core: int = 1
    numa_nodes: int = 1


class LauncherPair(Struct, frozen=True, kw_only=True):
    """An mpirun and the libmpi that its ranks must load; found by `clusterseg.cluster.mpi`.

    `program` is absolute. `libmpi` is None for `local` (no MPI). `where` says where it was
    found ("PATH", "beside this Python"), for messages.
    """

    name: str
    version: str
    program: str
    libmpi: str | None = None
    prefix: str | None = None
    where: str = ""


class Geometry(Struct, frozen=True, kw_only=True):
    """How many ranks stand where. `explanation` has one line a value: how it was solved."""

    nodes: int
    ranks: int
    ranks_per_node: int | None
    cpus_per_rank: int
    hosts: dict[str, int]
    explanation: tuple[str, ...] = ()


class Plan(Struct, frozen=True, kw_only=True):
    """Everything that will be done, as values.

    `argv` is the launch line (`mpirun … clusterseg train {run_dir}`), `environment` what is set
    for it, `unset` what must not travel, `script` the batch script whole, `hostfile` its
    content where the dialect needs one. `time_limit` is in seconds.
    """

    name: str
    scheduler: str
    launcher: str
    launcher_version: str
    mpirun: str
    libmpi: str | None
    hosts: dict[str, int]
    ranks: int
    geometry: Geometry
    argv: tuple[str, ...]
    environment: dict[str, str]
    unset: tuple[str, ...]
    script: str
    hostfile: str | None
    communicator: str
    threads: int
    time_limit: int | None
    warnings: tuple[str, ...]
    spec: JobSpec
