"""JobSpec + launcher + hosts -> Plan. Pure: what the machine is like is passed in."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from clusterseg.errors import ClustersegError
from clusterseg.plan.dialect import Dialect, Meaning, hostfile_text
from clusterseg.plan.geometry import solve
from clusterseg.plan.model import (
    HOSTFILE,
    RUN_DIR,
    CodeSource,
    Geometry,
    Host,
    LauncherPair,
    Plan,
)
from clusterseg.plan.placement import (
    binding,
    check_hosts,
    check_launcher,
    core_warnings,
    far_warnings,
)
from clusterseg.plan.script import batch_script, rank_length
from clusterseg.plan.snapshot import directory_in_copy, filled_directory, with_data_in_place
from clusterseg.plan.variables import (
    ATTEMPT_VARIABLES,
    OUTER_JOB,
    SEARCH_VARIABLES,
    rank_variables,
)
from clusterseg.spec.errors import SpecError
from clusterseg.spec.model import JobSpec
from clusterseg.spec.pending import not_yet


def make_plan(
    spec: JobSpec,
    *,
    dialect: Dialect,
    pair: LauncherPair,
    hosts: Sequence[Host],
    program: Sequence[str],
    as_root: bool,
    directory: str,
    horovod: bool = False,
    code: CodeSource | None = None,
) -> Plan:
    """The plan of `spec` for the local scheduler, with the run directory symbolic.

    `hosts` are the hosts that can be had, in order; `program` is the absolute argv prefix of
    clusterseg; `directory` is where the ranks run; `horovod` says that Horovod is installed and
    was built for `pair`; with `code` the ranks run in a copy of it. Raises ClustersegError for
    what cannot be planned.
    """
    require_ready(spec)
    geometry = solve(spec.resources, hosts, oversubscribe=spec.placement.oversubscribe)
    check_hosts(geometry)
    here = {host.name for host in hosts if host.here}
    far = [name for name in geometry.hosts if name not in here]
    host_list = bool(far) or geometry.nodes > 1
    check_launcher(geometry, dialect, host_list)
    warnings = [
        *_root_warnings(spec, as_root),
        *core_warnings(spec, dialect, geometry, hosts),
        *far_warnings(far),
    ]
    bound = binding(spec, dialect, geometry, host_list)
    values = {"map": dialect.map.get(spec.placement.map_by, ""), "cpus": geometry.cpus_per_rank}
    said: list[tuple[Meaning, dict[str, object]]] = [("root", {})] if as_root else []
    said.append(("output", {}))
    if spec.placement.verify != "off":
        said.append(("report_binding", {}))
    said.append((bound, values))
    if geometry.oversubscribed:
        said.append(("share_cores", {}))
    if host_list:
        said.append(("hosts", {"hostfile": HOSTFILE}))
    said.append(("ranks", {"ranks": geometry.ranks}))

    environment = rank_variables(
        spec,
        threads=geometry.cpus_per_rank,
        libmpi=pair.libmpi,
        launcher=_launcher_variables(dialect, pair, said),
    )
    flags = [flag for what, with_ in said for flag in dialect.say(what, **with_)]
    travelling = [*environment, *ATTEMPT_VARIABLES, *(SEARCH_VARIABLES if far else ())]
    for name in dict.fromkeys(travelling):
        flags += dialect.say("variable", name=name)
    rank = [*program, "train", RUN_DIR, *(("--", *spec.command) if spec.command else ())]
    launcher = [pair.program] if pair.program else []
    argv = (*launcher, *flags, *spec.launcher_args, *rank)
    plan = Plan(
        name=spec.name,
        scheduler="local",
        launcher=dialect.name,
        launcher_version=pair.version,
        mpirun=pair.program,
        libmpi=pair.libmpi,
        hosts=geometry.hosts,
        ranks=geometry.ranks,
        geometry=geometry,
        argv=argv,
        environment=environment,
        unset=(*OUTER_JOB, *dialect.unset),
        script="",
        hostfile=_hostfile(dialect, argv, environment, geometry),
        communicator=_communicator(spec, geometry, pair, horovod),
        threads=geometry.cpus_per_rank,
        program=tuple(program),
        directory=directory if code is None else directory_in_copy(code),
        time_limit=spec.resources.time,
        warnings=tuple(warnings),
        spec=spec if code is None else with_data_in_place(spec, code),
        code=code,
    )
    return replace(plan, script=batch_script(plan, RUN_DIR))


def require_ready(spec: JobSpec) -> None:
    """Refuses a job that asks for what clusterseg can't do yet, with all that it asks for."""
    problems = not_yet(spec)
    if problems:
        raise SpecError(problems)


def fill(plan: Plan, *, run_dir: str | None = None, hostfile: str | None = None) -> Plan:
    """`plan` with the run directory and the host file's path in place of their symbols.

    What is None stays symbolic. Words of the user's own command are never touched.
    """
    symbols = {
        symbol: value
        for symbol, value in ((RUN_DIR, run_dir), (HOSTFILE, hostfile))
        if value is not None
    }
    command = len(plan.spec.command or ())
    ours = plan.argv[: len(plan.argv) - command]
    own = plan.spec.environment.variables
    filled = replace(
        plan,
        argv=(*(symbols.get(word, word) for word in ours), *plan.argv[len(ours) :]),
        environment={
            name: value if name in own else symbols.get(value, value)
            for name, value in plan.environment.items()
        },
        directory=filled_directory(plan, run_dir),
    )
    shown = plan.argv[len(plan.argv) - rank_length(plan) + len(plan.program) + 1]
    return replace(filled, script=batch_script(filled, run_dir or shown))


def _communicator(spec: JobSpec, geometry: Geometry, pair: LauncherPair, horovod: bool) -> str:
    """What ranks talk through: `horovod`, `mpi`, `solo`; `none` for a `command`."""
    if spec.train is None:
        return "none"
    asked, ranks = spec.train.communicator, geometry.ranks
    if asked == "solo" and ranks > 1:
        raise ClustersegError(
            f"train.communicator: solo is for one rank, but ranks = {ranks}",
            code="communicator",
            help="use auto, or ask for one rank",
        )
    if asked in ("horovod", "mpi") and pair.libmpi is None:
        raise ClustersegError(
            f"train.communicator: {asked} needs an MPI, but the launcher {pair.name} has none",
            code="communicator",
            help="use auto, or a launcher with MPI",
        )
    if asked == "horovod" and not horovod:
        raise ClustersegError(
            f"train.communicator: Horovod is not installed for {pair.name} {pair.version}",
            code="communicator",
            help="build it for this MPI (make horovod), or use auto or mpi",
        )
    if asked != "auto":
        return asked
    if ranks == 1:
        return "solo"
    return "horovod" if horovod else "mpi"


def _launcher_variables(
    dialect: Dialect, pair: LauncherPair, said: Sequence[tuple[Meaning, dict[str, object]]]
) -> dict[str, str]:
    variables: dict[str, str] = {}
    for meaning, values in said:
        variables |= dialect.set(meaning, **values)
    if dialect.prefix_variable is not None and pair.prefix is not None:
        variables[dialect.prefix_variable] = pair.prefix
    return variables


def _hostfile(
    dialect: Dialect, argv: Sequence[str], environment: dict[str, str], geometry: Geometry
) -> str | None:
    if dialect.hostfile is None or (HOSTFILE not in argv and HOSTFILE not in environment.values()):
        return None
    return hostfile_text(dialect.hostfile, geometry.hosts)


def _root_warnings(spec: JobSpec, as_root: bool) -> list[str]:
    if not as_root:
        return []
    if not spec.placement.allow_root:
        raise ClustersegError(
            "placement.allow_root is false, and this is root",
            code="root",
            help="start as another user, or allow root",
        )
    return ["running as root: a mistake in the job can damage this machine"]
