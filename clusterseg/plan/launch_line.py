"""The launch line: what the launcher is told, its variables and its host file. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from clusterseg.errors import ClustersegError
from clusterseg.plan.containers import Container
from clusterseg.plan.dialect import Dialect, Meaning, hostfile_text
from clusterseg.plan.model import HOSTFILE, RUN_DIR, Geometry, LauncherPair
from clusterseg.plan.placement import binding
from clusterseg.plan.site import Site
from clusterseg.plan.slurm_options import accelerator_style, accelerators_per_rank
from clusterseg.plan.variables import ATTEMPT_VARIABLES, SEARCH_VARIABLES, rank_variables
from clusterseg.spec.model import JobSpec

_Said = tuple[Meaning, dict[str, object]]


@dataclass(frozen=True)
class LaunchLine:
    """`rank_words` at the end of `argv` are the rank's own; `hostfile` is the file's content, None
    where the line names none."""

    argv: tuple[str, ...]
    rank_words: int
    environment: dict[str, str]
    hostfile: str | None


def launch_line(
    spec: JobSpec,
    *,
    dialect: Dialect,
    pair: LauncherPair,
    geometry: Geometry,
    program: Sequence[str],
    container: Container | None,
    as_root: bool,
    listed: bool,
    far: bool,
    site: Site | None,
) -> LaunchLine:
    """`listed`: the hosts are given in a host file; `far`: other hosts are reached by ssh."""
    said = list(_said(spec, dialect, pair, geometry, as_root=as_root, listed=listed, site=site))
    if container is not None and container.values is not None:
        said.append(("container", container.values))
    environment = rank_variables(
        spec,
        threads=geometry.cpus_per_rank,
        # In a container there is another MPI, under another path.
        libmpi=pair.libmpi if container is None else None,
        launcher=_launcher_variables(dialect, pair, said),
    )
    flags = [flag for what, values in said for flag in dialect.say(what, **values)]
    travelling = [*environment, *ATTEMPT_VARIABLES, *(SEARCH_VARIABLES if far else ())]
    for name in dict.fromkeys(travelling):
        flags += dialect.say("variable", name=name)
    rank = _rank(spec, program, container)
    if pair.program:
        _check_words(rank)
    launcher = [pair.program] if pair.program else []
    argv = (*launcher, *flags, *spec.launcher_args, *rank)
    hostfile = None
    if dialect.hostfile is not None and (
        HOSTFILE in (*argv, *environment.values()) or any(HOSTFILE in flag for flag in flags)
    ):
        hostfile = hostfile_text(dialect.hostfile, geometry.hosts)
    return LaunchLine(argv, len(rank), environment, hostfile)


def _rank(spec: JobSpec, program: Sequence[str], container: Container | None) -> Sequence[str]:
    """A rank's own command line.

    The program of a `command` is put into the container by itself, so that its image needs no
    clusterseg; a rank that trains, or one that the launcher puts in, needs it there.
    """
    if container is None:
        inside: Sequence[str] = ()
    elif container.words and spec.command:
        return [*program, "train", RUN_DIR, "--", *container.words, *spec.command]
    else:
        inside, program = container.words, ["clusterseg"]
    return [*inside, *program, "train", RUN_DIR, *(("--", *spec.command) if spec.command else ())]


def _check_words(rank: Sequence[str]) -> None:
    """Refuses a word at which every mpirun, and srun, would begin another program."""
    if ":" in rank:
        raise ClustersegError(
            "command: the word ':' would not arrive: launchers take it for the end of the command",
            code="command",
            help="let a shell say it, as in: command: [sh, -c, 'program :']",
        )


def _said(
    spec: JobSpec,
    dialect: Dialect,
    pair: LauncherPair,
    geometry: Geometry,
    *,
    as_root: bool,
    listed: bool,
    site: Site | None,
) -> Iterator[_Said]:
    """What is to be said, in the order of the line; what a dialect lacks says nothing."""
    map_by = dialect.map.get(spec.placement.map_by, "")
    cpus = geometry.cpus_per_rank
    if as_root:
        yield "root", {}
    yield "output", {}
    yield "together", {}
    if pair.mpi is not None:
        yield "mpi", {"mpi": pair.mpi}
    report = dialect.report if spec.placement.verify != "off" else ""
    if spec.placement.verify != "off":
        yield "report_binding", {}
    bound = binding(spec, dialect, geometry, listed)
    yield bound, {"map": map_by, "cpus": cpus, "report": report}
    if geometry.oversubscribed:
        yield "share_cores", {}
    if listed:
        yield "hosts", {"hostfile": HOSTFILE}
    elif map_by:
        yield "map", {"map": map_by}
    yield "nodes", {"nodes": geometry.nodes}
    yield "ranks", {"ranks": geometry.ranks}
    if geometry.ranks_per_node is not None:
        yield "per_node", {"per_node": geometry.ranks_per_node}
    if site is not None:
        threads = site.partition(spec.slurm.partition)[1].threads_per_core
        yield "cpus", {"cpus": cpus * threads}
        accelerators = accelerators_per_rank(spec)
        if accelerators and accelerator_style(spec, site) == "gpus-per-task":
            yield "accelerators", {"accelerators": accelerators}


def _launcher_variables(
    dialect: Dialect, pair: LauncherPair, said: Sequence[_Said]
) -> dict[str, str]:
    variables: dict[str, str] = {}
    for meaning, values in said:
        variables |= dialect.set(meaning, **values)
    if dialect.prefix_variable is not None and pair.prefix is not None:
        variables[dialect.prefix_variable] = pair.prefix
    return variables
