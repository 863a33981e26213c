"""JobSpec + launcher + hosts (+ site) -> Plan. Pure: what the machine is like is passed in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.plan.communicator import communicator
from clusterseg.plan.containers import check_mounts, container_of
from clusterseg.plan.devices import device_warnings
from clusterseg.plan.dialect import Dialect
from clusterseg.plan.geometry import solve
from clusterseg.plan.job_variables import own_variables
from clusterseg.plan.launch_line import check_output_folder, launch_line
from clusterseg.plan.model import (
    AFTER,
    HOSTFILE,
    OUTPUT,
    RUN_DIR,
    CodeSource,
    Host,
    LauncherPair,
    Plan,
    SlurmPlan,
)
from clusterseg.plan.placement import (
    Launchers,
    check_binding,
    check_hosts,
    check_launcher,
    core_warnings,
    far_warnings,
)
from clusterseg.plan.rank_table import check_table
from clusterseg.plan.script import batch_script, check_runs_folder
from clusterseg.plan.site import ContainerTool, Site
from clusterseg.plan.slurm_plan import slurm_plan, slurm_warnings
from clusterseg.plan.snapshot import directory_in_copy, filled_directory, with_data_in_place
from clusterseg.plan.symbols import filled_line, is_symbolic, placed_line, shown_hosts
from clusterseg.plan.variables import OUTER_ARRAY, OUTER_JOB, OUTER_STEP
from clusterseg.plan.wrapped import Inner, wrap
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
    inner: Inner | None = None,
    horovod: bool = False,
    code: CodeSource | None = None,
    site: Site | None = None,
    template: str = "",
    container_tool: ContainerTool | None = None,
    launchers: Launchers = dict,
) -> Plan:
    """The plan of `spec`, with the run directory symbolic: for Slurm with a `site`, else local.

    `hosts` are the hosts that can be had, in order (for Slurm `symbolic_hosts`); `program` is the
    absolute argv prefix of clusterseg; `inner` is the launcher that a wrapper such as horovodrun
    calls; `directory` is where the ranks run; `horovod` says that Horovod is installed and was
    built for `pair`; with `code` the ranks run in a copy of it; `template` is the text of Slurm's
    batch script, `container_tool` what the ranks' container is run with; `launchers` are those
    that could be asked for instead, for messages. Raises ClustersegError for what cannot be
    planned.
    """
    scheduler = "local" if site is None else "slurm"
    require_ready(spec, scheduler)
    dialect = wrap(dialect, inner, spec, site)
    geometry = solve(spec.resources, hosts, spec.placement)
    if site is None or spec.resources.hosts is not None:
        check_hosts(geometry)
    if site is None:
        here = {host.name for host in hosts if host.here}
        far = [name for name in geometry.hosts if name not in here]
        listed = bool(far) or geometry.nodes > 1
    else:
        far = []
        listed = geometry.ranks_per_node is None  # all else Slurm tells the launcher
    check_launcher(geometry, dialect, listed, launchers)
    check_binding(spec, dialect, geometry, hosts, launchers)
    working = directory if code is None else directory_in_copy(code)
    container = container_of(
        spec, container_tool, dialect, directory=directory, working=working, site=site
    )
    line = launch_line(
        spec,
        dialect=dialect,
        pair=pair,
        geometry=geometry,
        hosts=hosts,
        program=program,
        container=container,
        as_root=as_root,
        listed=listed,
        far=bool(far),
        site=site,
    )
    slurm = None
    if site is not None:
        slurm = slurm_plan(spec, geometry, site, directory=working, template=template)
    plan = Plan(
        name=spec.name,
        scheduler=scheduler,
        launcher=dialect.name,
        launcher_version=pair.version,
        mpirun=pair.program,
        libmpi=pair.libmpi,
        hosts=geometry.hosts,
        ranks=geometry.ranks,
        geometry=geometry,
        argv=line.argv,
        environment=line.environment,
        unset=(*_outer(site, slurm, listed), *dialect.unset),
        own=() if slurm is None else own_variables(slurm.options),
        script="",
        hostfile=line.hostfile,
        communicator=communicator(spec, geometry, pair, horovod),
        threads=geometry.cpus_per_rank,
        program=tuple(program),
        directory=working,
        time_limit=spec.resources.time,
        warnings=(
            *_root_warnings(spec, as_root),
            *core_warnings(spec, dialect, geometry, hosts),
            *far_warnings(far),
            *device_warnings(spec.resources.accelerator, spec.resources.accelerators_per_rank),
            *check_table(spec, geometry.hosts, geometry.ranks),
            *(slurm_warnings(spec, geometry, dialect, site) if site is not None else ()),
        ),
        spec=spec if code is None else with_data_in_place(spec, code),
        rank_words=line.rank_words,
        slurm=slurm,
        code=code,
        session_variable=dialect.session_variable,
        first_on_path=inner.folder if inner is not None and dialect.wraps else None,
    )
    return replace(plan, script=batch_script(plan))


def require_ready(spec: JobSpec, scheduler: str = "local") -> None:
    """Refuses a job that asks for what clusterseg can't do yet, with all that it asks for."""
    problems = not_yet(spec, scheduler)
    if problems:
        raise SpecError(problems)


def fill(
    plan: Plan,
    *,
    run_dir: str | None = None,
    hostfile: str | None = None,
    output: str | None = None,
    after: str | None = None,
) -> Plan:
    """`plan` with values in place of its symbols; what is None stays symbolic.

    `hostfile` is the path of the host file, `output` the file that Slurm writes the batch
    script's output to, `after` the id of the job that must end first; empty: none must. Words of
    the user's own command are never touched.
    """
    symbols = {
        symbol: value
        for symbol, value in ((RUN_DIR, run_dir), (HOSTFILE, hostfile))
        if value is not None
    }
    own = plan.spec.environment.variables
    directory = filled_directory(plan, run_dir)
    if run_dir is not None:
        check_runs_folder(run_dir)
        check_output_folder(plan.spec, run_dir)
        check_mounts(plan.spec, (run_dir, directory))
    filled = replace(
        plan,
        argv=filled_line(plan.argv, plan, symbols),
        environment={
            name: value if name in own else symbols.get(value, value)
            for name, value in plan.environment.items()
        },
        directory=directory,
        run_dir=run_dir or plan.run_dir,
    )
    if plan.slurm is not None:
        options = _filled_options(plan.slurm, directory, output, after)
        filled = replace(filled, slurm=replace(plan.slurm, options=options))
    return replace(filled, script=batch_script(filled))


def place(plan: Plan, hosts: Sequence[str]) -> Plan:
    """`plan` on the hosts of its allocation, in Slurm's order; for a local plan, itself.

    Raises ClustersegError (`allocation`) if these are not the hosts that were asked for.
    """
    if plan.slurm is None:
        return plan
    names = _names(plan, hosts)

    def placed(counts: Mapping[str, int]) -> dict[str, int]:
        return {names[name]: count for name, count in counts.items()}

    lines = None if plan.hostfile is None else plan.hostfile.splitlines(keepends=True)
    return replace(
        plan,
        hosts=placed(plan.hosts),
        geometry=replace(plan.geometry, hosts=placed(plan.geometry.hosts)),
        hostfile=None if lines is None else "".join(placed_line(line, names) for line in lines),
    )


def _names(plan: Plan, hosts: Sequence[str]) -> dict[str, str]:
    """The real name of each host of the plan."""
    if all(map(is_symbolic, plan.hosts)):
        if len(hosts) >= len(plan.hosts):
            return dict(zip(plan.hosts, hosts, strict=False))
    else:
        short = {name.partition(".")[0].lower(): name for name in hosts}
        found = {name: short.get(name.partition(".")[0].lower()) for name in plan.hosts}
        if all(found.values()):
            return {name: name for name in plan.hosts}
    named = "" if any(map(is_symbolic, plan.hosts)) else f": {shown_hosts(plan.hosts)}"
    raise ClustersegError(
        f"the allocation has the hosts {', '.join(hosts) or 'none'}, but the plan asks for "
        f"{len(plan.hosts)}{named}",
        code="allocation",
        help="submit the job with `clusterseg submit`, or give sbatch the script as it is",
        exit_code=ExitCode.FAILED,
    )


def _filled_options(
    slurm: SlurmPlan, directory: str, output: str | None, after: str | None
) -> tuple[str, ...]:
    options = []
    for option in slurm.options:
        name, _, value = option.partition("=")
        if name == "--chdir":
            options.append(f"--chdir={directory}")
        elif value == OUTPUT and output is not None:
            options.append(f"--output={_as_pattern(output)}")
        elif name == "--dependency" and value.endswith(AFTER) and after is not None:
            if after:
                options.append(option.replace(AFTER, after))
        else:
            options.append(option)
    return tuple(options)


def _as_pattern(path: str) -> str:
    """`path` as sbatch takes it (manual, FILENAME PATTERN): a backslash turns patterns off."""
    if "\\" in path:
        return path.replace("\\", "\\\\")
    return path.replace("%", "%%")


def _outer(site: Site | None, slurm: SlurmPlan | None, listed: bool) -> tuple[str, ...]:
    """Variables of another job, of which this one may have inherited some."""
    if site is None or slurm is None:
        return OUTER_JOB
    names = [*OUTER_STEP]
    if slurm.array is None:
        names.append(OUTER_ARRAY)
    if listed:
        names.append("SLURM_NTASKS_PER_NODE")  # it holds for the job, not for these ranks
    return tuple(names)


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
