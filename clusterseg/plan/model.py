"""The plan: the very request that `submit` executes, and what `render` prints.

Host names and the run directory may be symbolic: `{run_dir}`, `{hostfile}` and host names such
as `{host0}` are filled in by `clusterseg.plan.planner.fill` when they are known. So may be the
folder of a snapshot in `Plan.directory`, `{run_dir}/code/…`.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from clusterseg.spec.model import JobSpec

RUN_DIR = "{run_dir}"
HOSTFILE = "{hostfile}"
LAUNCHER_FOLDER = "{launcher_folder}"  # where the launcher writes the ranks' output
OUTPUT = "{output}"  # where Slurm writes what the batch script prints
AFTER = "{after}"  # the id of the job that has to end first

Task = Literal["train", "lr-find"]
# Physical cores of each NUMA node, by socket: ((8, 8), (8, 8)) is 2 sockets of 2 nodes each.
Shape = tuple[tuple[int, ...], ...]


class Host(Struct, frozen=True, kw_only=True):
    """A host as the planner sees it: its usable physical cores and its sockets.

    `cores` is None where they are not known (a host that is only named). `here` marks the host
    on which the launcher itself runs. `shape` says how many cores lie where, None where only the
    counts are known: then they are taken to be dealt out evenly. `own_cores` is set where this
    process may use fewer cores than its cpuset has: which, counted as hwloc does (over the cpuset,
    from 0); empty where it has a core only in part.
    """

    name: str
    cores: int | None
    sockets: int = 1
    threads_per_core: int = 1
    numa_nodes: int = 1
    shape: Shape | None = None
    own_cores: tuple[int, ...] | None = None
    here: bool = False


class LauncherPair(Struct, frozen=True, kw_only=True):
    """An mpirun and the libmpi that its ranks must load; found by `clusterseg.cluster.mpi`.

    `program` is absolute, and empty for `local`: there clusterseg itself starts the ranks. `libmpi`
    is None for `local` (no MPI). `prefix` is set only for a relocated MPI, one that finds its files
    by a variable (OPAL_PREFIX). `where` says where the pair was found ("on PATH", "beside
    this Python"), for messages. `mpi` is what srun must speak with the ranks (its `--mpi`), None
    where the launcher is none of Slurm's, or Slurm's default is to be used.
    """

    name: str
    version: str
    program: str
    libmpi: str | None = None
    prefix: str | None = None
    where: str = ""
    mpi: str | None = None


class Detect(Struct, frozen=True, kw_only=True):
    """How the launcher is recognised.

    `pattern` is searched in what `program arguments...` prints; its group is the version. A
    program that a Python `package` installed is not run: the version is that of the package.
    """

    pattern: str | None = None
    arguments: tuple[str, ...] = ("--version",)
    package: str | None = None


class HostfileFormat(Struct, frozen=True, kw_only=True):
    """One `line` a host, or (`per: rank`) one a rank.

    `turns`: ranks are numbered by the order of the lines, also where a host has several, so that
    `map_by: node` is said by lines of one rank that take turns.
    """

    line: str
    per: Literal["host", "rank"] = "host"
    turns: bool = False


class Definition(Struct, frozen=True, kw_only=True):
    """The keys of a launcher definition (a file in `launchers/`): how it is found and says things.

    `libmpi` are glob patterns below the launcher's prefix, the first that exists is its library.
    `report` is what `{report}` in the flags of binding becomes where the ranks' cores are to be
    reported. `map` translates `placement.map_by`, `order` has by map_by further flags that number
    the ranks; `cannot` has, by map_by, what can't be bound to then, `only_one` what is bound to as
    planned only where a host (by socket: a socket) has one of it, `equal_only` the ways of mapping
    that want the same number of ranks on every host, `numa_first` those in which no rank gets
    cores of a NUMA node that another one has begun, if they do not suffice for it.
    `prefix_variable` names the variable by which a moved installation finds its files,
    `session_variable` the one that says where on this host its mpirun keeps files of its own while
    it runs, for a launcher that needs a fresh folder for them. `unset` are
    names of variables (`*` stands for any characters)
    that an outer job leaves and that must not reach the ranks, `not_passed` of those that it keeps
    from other hosts whatever it is told. `srun_mpi` is what srun's `--mpi`
    must be for ranks of this MPI. `starts_any_mpi`: it has no libmpi of its own, its ranks load
    that of another launcher. `wraps` are the launchers whose mpirun it calls, having none itself.
    `ends_together`: when it ends the others because a rank has failed;
    `inside-mpi`: of ranks that have not started MPI, it waits for all. `program` may be several
    names, looked for in this order; without one the ranks are processes of one host, which
    clusterseg starts by itself (`clusterseg ranks`).
    """

    title: str
    program: str | tuple[str, ...] | None = None
    detect: Detect | None = None
    libmpi: tuple[str, ...] = ()
    prefix_variable: str | None = None
    session_variable: str | None = None
    report: str = ""
    map: dict[str, str] = {}
    order: dict[str, tuple[str, ...]] = {}
    equal_only: tuple[str, ...] = ()
    cannot: dict[str, tuple[str, ...]] = {}
    only_one: dict[str, tuple[str, ...]] = {}
    numa_first: tuple[str, ...] = ()
    flags: dict[str, tuple[str, ...]] = {}
    variables: dict[str, dict[str, str]] = {}
    hostfile: HostfileFormat | None = None
    unset: tuple[str, ...] = ()
    not_passed: tuple[str, ...] = ()
    srun_mpi: str | None = None
    starts_any_mpi: bool = False
    wraps: tuple[str, ...] = ()
    ends_together: Literal["always", "inside-mpi"] = "always"

    @property
    def programs(self) -> tuple[str, ...]:
        """The names to look for; none for plain processes."""
        if self.program is None:
            return ()
        return (self.program,) if isinstance(self.program, str) else self.program


class Geometry(Struct, frozen=True, kw_only=True):
    """How many ranks stand where. `explanation` has one line a value: how it was solved.

    `ranks_per_node` is None where hosts differ. `oversubscribed`: a host has fewer cores than
    its ranks want, as was asked for. `whole_hosts`: every host has one rank, with all its cores,
    more than one socket has.
    """

    nodes: int
    ranks: int
    ranks_per_node: int | None
    cpus_per_rank: int
    hosts: dict[str, int]
    explanation: tuple[str, ...] = ()
    oversubscribed: bool = False
    whole_hosts: bool = False


class CodeSource(Struct, frozen=True, kw_only=True):
    """What a snapshot is taken of: the git repository at `top`, submitted from `directory` in it.

    Both are absolute and without links. Relative paths of data in job.yaml start at `directory`.
    """

    top: str
    directory: str


class SlurmPlan(Struct, frozen=True, kw_only=True):
    """What of a plan is Slurm's.

    `options` are all options of sbatch, each one word (`--nodes=2`); they are the directives of
    the script, and `submit` gives them again on the command line, where a flag beats what
    SBATCH_* variables say. `metadata_delay` is in seconds: so long may this site's file system
    show old metadata. `notice`: a preempted batch script is warned; None where that is not
    known. `accounting` likewise. `requeue`: Slurm may start the job again by itself.
    `template` is the text of the batch script's template.
    """

    options: tuple[str, ...]
    site: str | None
    metadata_delay: float
    notice: bool | None
    accounting: bool | None
    requeue: bool
    partition: str | None = None
    array: str | None = None
    modules: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    template: str = ""


class LrRange(Struct, frozen=True, kw_only=True):
    """A learning rate range test: `steps` rates from `lowest` to `highest` for each optimizer."""

    optimizers: tuple[str, ...]
    lowest: float = 1e-6
    highest: float = 10.0
    steps: int = 141  # 20 a decade


class Plan(Struct, frozen=True, kw_only=True):
    """Everything that will be done, as values.

    `argv` is the launch line (`mpirun … clusterseg train {run_dir}`), `environment` what is set
    for it, `unset` what must not travel (names with `*`), `own` what Slurm itself says about this
    job: of all else in its name space, nothing travels. `script` is the batch script whole,
    `hostfile` its content where the dialect needs one. The script itself unsets and sets, so
    what it starts needs nothing but the variables of its attempt. `program` is the argv prefix
    of clusterseg, `directory` where the ranks run, `threads` the cores of one rank.
    `time_limit` is in seconds. `why` ("it is asked for") goes with the launcher. `task` is what
    the ranks do: `train`, which is what the job says (its `command` too), or `lr-find`, with
    `lr_find` set. `code` is set for `code: snapshot`; `directory` then lies in the run directory's
    copy. `force`: go on from a checkpoint that differs from the job where that makes sense to who
    asked for it (`clusterseg.runs.fit`). `first_on_path` is the folder where the launcher has to
    find its mpirun, if it looks for one. By `session_variable`, if there is one, the launcher is
    told of a folder that it has to itself for an attempt.
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
    program: tuple[str, ...]
    directory: str
    time_limit: int | None
    warnings: tuple[str, ...]
    spec: JobSpec
    run_dir: str = RUN_DIR
    rank_words: int = 0
    own: tuple[str, ...] = ()
    slurm: SlurmPlan | None = None
    code: CodeSource | None = None
    force: bool = False
    why: str = ""
    first_on_path: str | None = None
    session_variable: str | None = None
    task: Task = "train"
    lr_find: LrRange | None = None
