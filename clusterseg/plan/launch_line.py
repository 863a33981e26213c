"""The launch line: what the launcher is told, its variables and its host file. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from clusterseg.errors import ClustersegError
from clusterseg.plan.containers import Container
from clusterseg.plan.devices import device_words
from clusterseg.plan.dialect import Dialect, Meaning, hostfile_text, substitute
from clusterseg.plan.model import HOSTFILE, LAUNCHER_FOLDER, RUN_DIR, Geometry, Host, LauncherPair
from clusterseg.plan.placement import BINDINGS, binding, cores_to_keep_to
from clusterseg.plan.site import Site
from clusterseg.plan.slurm_options import accelerator_style, accelerators_per_rank
from clusterseg.plan.variables import (
    ATTEMPT_VARIABLES,
    LONGEST,
    SEARCH_VARIABLES,
    rank_variables,
)
from clusterseg.spec.model import JobSpec

# From so many hosts on an mpirun that starts its daemons by ssh does it by itself and all at once
# rather than as a tree, in which one slow host holds up all behind it (Horovod does so too).
_MANY = 64

_ODD_IN_FOLDER = "%:,\\'\""

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
    hosts: Sequence[Host],
    program: Sequence[str],
    container: Container | None,
    as_root: bool,
    listed: bool,
    far: bool,
    site: Site | None,
) -> LaunchLine:
    """`hosts` are those that can be had; `listed`: those of the job are given in a host file;
    `far`: other hosts are reached by ssh."""
    threads = _threads_per_core(dialect, geometry, hosts)
    if far or geometry.nodes > 1:
        _check_passed(spec, dialect)
    said = list(
        _said(
            spec,
            dialect,
            pair,
            geometry,
            threads=threads,
            as_root=as_root,
            listed=listed,
            site=site,
        )
    )
    cores = cores_to_keep_to(spec, dialect, geometry, hosts)
    if cores is not None:
        said.append(("only_cores", {"cores": cores}))
    if container is not None and container.values is not None:
        said.append(("container", container.values))
    if far and geometry.nodes >= _MANY:
        said.append(("many", {"nodes": geometry.nodes}))
    environment = rank_variables(
        spec,
        threads=geometry.cpus_per_rank,
        # In a container there is another MPI, under another path.
        libmpi=pair.libmpi if container is None else None,
        launcher=_launcher_variables(dialect, pair, said),
    ) | device_words(
        spec.resources.accelerator,
        accelerators_per_rank(spec),
        spec.environment.variables,
        given=dialect.can("accelerators") and any(what == "accelerators" for what, _ in said),
    )
    flags = [flag for what, values in said for flag in _flags(dialect, spec, what, values)]
    travelling = dict.fromkeys(
        [*environment, *ATTEMPT_VARIABLES, *(SEARCH_VARIABLES if far else ())]
    )
    flags += dialect.say("variables_list", names=",".join(travelling))
    for name in travelling:
        flags += dialect.say("variable", name=name)
    rank = _rank(spec, program, container, watched=dialect.ends_together != "always")
    _check_lengths(spec)
    if pair.program:
        _check_words(rank)
        argv = (pair.program, *flags, *spec.launcher_args, *rank)
    else:
        argv = (*program, "ranks", *flags, *spec.launcher_args, "--", *rank)
    hostfile = None
    if dialect.hostfile is not None and (
        HOSTFILE in (*argv, *environment.values()) or any(HOSTFILE in flag for flag in flags)
    ):
        turns = spec.placement.map_by == "node"
        hostfile = hostfile_text(dialect.hostfile, geometry.hosts, turns=turns)
    return LaunchLine(argv, len(rank), environment, hostfile)


def check_output_folder(spec: JobSpec, run_dir: str) -> None:
    """Refuses a run directory whose path a launcher would not take as it stands.

    Open MPI ends the name of a folder at a colon or comma, Hydra and srun fill in what follows a
    percent sign, horovodrun gives it to a shell in quotes.
    """
    odd = sorted({*run_dir} & {*_ODD_IN_FOLDER})
    if spec.launcher_output == "files" and odd:
        raise ClustersegError(
            f"launcher_output: {' and '.join(odd)} in {run_dir} mean something to launchers",
            code="launcher-output",
            help="give another folder for the runs (--runs-dir), or leave launcher_output out",
        )


def _rank(
    spec: JobSpec, program: Sequence[str], container: Container | None, *, watched: bool
) -> Sequence[str]:
    """A rank's own command line.

    The program of a `command` is put into the container by itself, so that its image needs no
    clusterseg; a rank that trains, or one that the launcher puts in, needs it there. `watched`: the
    launcher may not tell of a program's end, so that its wrapper stays and does.
    """
    start = ["train", *(["--watched"] if watched and spec.command else []), RUN_DIR]
    if container is None:
        inside: Sequence[str] = ()
    elif container.words and spec.command:
        return [*program, *start, "--", *container.words, *spec.command]
    else:
        inside, program = container.words, ["clusterseg"]
    return [*inside, *program, *start, *(("--", *spec.command) if spec.command else ())]


def _check_words(rank: Sequence[str]) -> None:
    """Refuses a word at which every mpirun, and srun, would begin another program."""
    if ":" in rank:
        raise ClustersegError(
            "command: the word ':' would not arrive: launchers take it for the end of the command",
            code="command",
            help="let a shell say it, as in: command: [sh, -c, 'program :']",
        )


def _check_lengths(spec: JobSpec) -> None:
    """Refuses a word that no process can be given, on whatever launcher."""
    for key, words in (("command", spec.command or ()), ("launcher_args", spec.launcher_args)):
        longest = max((len(word.encode("utf-8", "surrogateescape")) for word in words), default=0)
        if longest >= LONGEST:
            raise ClustersegError(
                f"{key}: a word is {longest} bytes long, and Linux takes {LONGEST - 1} of one",
                code="too-long",
                help="put it into a file, and name that",
            )


def _said(
    spec: JobSpec,
    dialect: Dialect,
    pair: LauncherPair,
    geometry: Geometry,
    *,
    threads: int,
    as_root: bool,
    listed: bool,
    site: Site | None,
) -> Iterator[_Said]:
    """What is to be said, in the order of the line; what a dialect lacks says nothing."""
    cpus = geometry.cpus_per_rank
    map_by = substitute(dialect.map.get(spec.placement.map_by, ""), {"cpus": cpus})
    if as_root:
        yield "root", {}
    if spec.launcher_output == "files":
        yield _rank_output(dialect), {"folder": LAUNCHER_FOLDER}
    else:
        yield "output", {}
    yield "together", {}
    if site is not None:
        yield "slurm", {}
    if pair.mpi is not None:
        yield "mpi", {"mpi": pair.mpi}
    report = dialect.report if spec.placement.verify != "off" else ""
    if spec.placement.verify != "off":
        yield "report_binding", {}
    bound = binding(spec, dialect, geometry, listed)
    processors = cpus * threads
    yield bound, {"map": map_by, "cpus": cpus, "processors": processors, "report": report}
    if geometry.oversubscribed:
        yield "share_cores", {}
    if listed:
        yield "hosts", {"hostfile": HOSTFILE}
    elif map_by:
        yield "map", {"map": map_by}
    yield from _counts(spec, dialect, geometry)
    if site is not None:
        yield from _shares(spec, geometry, site)


def _counts(spec: JobSpec, dialect: Dialect, geometry: Geometry) -> Iterator[_Said]:
    yield "nodes", {"nodes": geometry.nodes}
    yield "ranks", {"ranks": geometry.ranks}
    if geometry.ranks_per_node is None:
        return
    if spec.placement.map_by == "node" and dialect.can("turns"):
        yield "turns", {}
    else:
        yield "per_node", {"per_node": geometry.ranks_per_node}


def _shares(spec: JobSpec, geometry: Geometry, site: Site) -> Iterator[_Said]:
    """What a step of Slurm is to give to a rank."""
    threads = site.partition(spec.slurm.partition)[1].threads_per_core
    yield "cpus", {"cpus": geometry.cpus_per_rank * threads}
    accelerators = accelerators_per_rank(spec)
    if accelerators and accelerator_style(spec, site) == "gpus-per-task":
        yield "accelerators", {"accelerators": accelerators}


def _check_passed(spec: JobSpec, dialect: Dialect) -> None:
    for name in dialect.not_passed:
        if name in spec.environment.variables:
            raise ClustersegError(
                f"environment.variables.{name}: the launcher {dialect.name} does not pass it on to "
                "other hosts",
                code="environment",
                help="set it in the program itself, or use another launcher",
            )


def _rank_output(dialect: Dialect) -> Meaning:
    if not dialect.can("rank_output"):
        raise ClustersegError(
            f"launcher_output: the launcher {dialect.name} writes no file a rank",
            code="launcher-output",
            help="leave it out: every rank's output is in its log in the run directory anyway "
            "(clusterseg logs RUN --rank N)",
        )
    return "rank_output"


def _flags(
    dialect: Dialect, spec: JobSpec, meaning: Meaning, values: Mapping[str, object]
) -> tuple[str, ...]:
    flags = dialect.say(meaning, **values)
    if meaning in BINDINGS:
        flags += dialect.order.get(spec.placement.map_by, ())
    return flags


def _threads_per_core(dialect: Dialect, geometry: Geometry, hosts: Sequence[Host]) -> int:
    """Hardware threads of a core, for a dialect that counts them; hosts that are only named are
    taken to be like this one.

    Raises ClustersegError (`placement`) where they differ, and so one number can't be right.
    """
    if not dialect.uses("processors"):
        return 1
    known = {host.name: host.threads_per_core for host in hosts if host.cores is not None}
    here = next((host.threads_per_core for host in hosts if host.here), 1)
    used = {known.get(name, here) for name in geometry.hosts}
    if len(used) > 1:
        raise ClustersegError(
            f"placement.bind_to: the launcher {dialect.name} counts hardware threads, and cores "
            f"have {' or '.join(map(str, sorted(used)))} of them, by host",
            code="placement",
            help="use hosts that are alike, another launcher, or bind_to: none",
        )
    return used.pop()


def _launcher_variables(
    dialect: Dialect, pair: LauncherPair, said: Sequence[_Said]
) -> dict[str, str]:
    variables: dict[str, str] = {}
    for meaning, values in said:
        variables |= dialect.set(meaning, **values)
    if dialect.prefix_variable is not None and pair.prefix is not None:
        variables[dialect.prefix_variable] = pair.prefix
    return variables
