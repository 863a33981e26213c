"""What this machine can do, as values: its launchers, whether they work, and which one is taken."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from clusterseg import __version__
from clusterseg.cluster.agreement import Agreement
from clusterseg.cluster.horovod_record import HorovodBuild, horovod_build, horovod_fits
from clusterseg.cluster.mpi import Sighting, look_around, mpi_types
from clusterseg.cluster.slurm.configuration import configuration_file, present_cluster
from clusterseg.cluster.topology import this_host
from clusterseg.errors import ClustersegError
from clusterseg.plan.dialect import Dialect
from clusterseg.plan.model import Host, LauncherPair
from clusterseg.spec.model import JobSpec
from clusterseg.submit.definitions import find_site
from clusterseg.submit.launchers import choose_launcher, is_wrapper, read_definitions
from clusterseg.submit.request import wants_slurm
from clusterseg.submit.two_ranks import ask_horovod, ask_mpi4py

RANKS = 2


class LauncherSeen(Struct, frozen=True, kw_only=True):
    """A launcher that exists here.

    `two_ranks` is what two ranks said that were started with it, `horovod` the same over Horovod;
    None where they were not asked. `horovod_built`: Horovod has the record of a build for this
    pair, without which a job does not use it. `speaks` are the types of `srun --mpi`. `note` says
    why no ranks were started where that is the launcher's nature.
    """

    name: str
    title: str
    version: str = ""
    program: str = ""
    libmpi: str | None = None
    where: str = ""
    speaks: tuple[str, ...] = ()
    two_ranks: Agreement | None = None
    horovod: Agreement | None = None
    horovod_built: bool = False
    note: str = ""


class Unusable(Struct, frozen=True, kw_only=True):
    """A program that looks like a launcher, and why it can't be used."""

    program: str
    where: str
    reason: str


class Packages(Struct, frozen=True, kw_only=True):
    """What the ranks would load, by version; None: not installed for this Python."""

    python: str
    executable: str
    clusterseg: str
    mpi4py: str | None
    tensorflow: str | None
    horovod: str | None
    horovod_build: HorovodBuild | None


class SlurmSeen(Struct, frozen=True, kw_only=True):
    """Slurm, as far as it can be told without asking its controller. `job`: we are inside of it."""

    version: str
    cluster: str | None
    site: str
    configuration: str | None
    job: str | None


class Topology(Struct, frozen=True, kw_only=True):
    """This host. `host` and `cpus` count what this process may use, `online` all its CPUs."""

    host: Host
    cpus: tuple[int, ...]
    online: int


class Chosen(Struct, frozen=True, kw_only=True):
    """What `launcher: auto` takes for a job of two ranks, and why; or the `problem`."""

    scheduler: str
    launcher: str = ""
    version: str = ""
    program: str = ""
    why: str = ""
    problem: str | None = None
    help: str | None = None


class Report(Struct, frozen=True, kw_only=True):
    """What was found. `works`: a launcher is here that starts two ranks that meet (or, where no
    ranks were started, one that has what it needs for that)."""

    works: bool
    launchers: tuple[LauncherSeen, ...]
    unusable: tuple[Unusable, ...]
    chosen: Chosen
    packages: Packages
    topology: Topology
    slurm: SlurmSeen | None


def examine(
    environ: Mapping[str, str] = os.environ,
    *,
    start_ranks: bool,
    tell: Callable[[str], None] = lambda _: None,
) -> Report:
    """Looks at this machine. With `start_ranks` every MPI's launcher starts two ranks here.

    `tell` hears what is done next, where that takes some seconds. Raises SpecError for a launcher
    definition or a site's profile with mistakes.
    """
    definitions = read_definitions(environ)
    host, packages = this_host(), _packages()
    questions = _questions(packages)
    sightings = [*look_around(definitions, environ)]
    launchers = []
    for sighting in sightings:
        if sighting.pair is not None:
            dialect, pair = definitions[sighting.pair.name], sighting.pair
            seen = _seen(dialect, pair, environ)
            asks = [partial(ask, dialect, pair, environ) for ask in questions]
            if start_ranks and not seen.note:
                seen = _asked(seen, asks, tell)
            launchers.append(seen)
    launchers += [
        LauncherSeen(name=name, title=known.title, note="starts ranks without MPI")
        for name, known in definitions.items()
        if not known.programs
    ]
    return Report(
        works=any(_works(seen, start_ranks) for seen in launchers),
        launchers=tuple(launchers),
        unusable=tuple(_unusable(sightings)),
        chosen=_chosen(environ),
        packages=packages,
        topology=Topology(
            host=host, cpus=tuple(sorted(os.sched_getaffinity(0))), online=os.cpu_count() or 1
        ),
        slurm=_slurm(sightings, environ),
    )


def _seen(dialect: Dialect, pair: LauncherPair, environ: Mapping[str, str]) -> LauncherSeen:
    speaks: Sequence[str] = ()
    note = ""
    if dialect.starts_any_mpi:
        speaks = sorted(mpi_types(pair.program, environ))
        note = "starts ranks in jobs of Slurm"
    elif is_wrapper(dialect):
        note = "starts ranks by another launcher's mpirun"
    return LauncherSeen(
        name=dialect.name,
        title=dialect.title,
        version=pair.version,
        program=pair.program,
        libmpi=pair.libmpi,
        where=pair.where,
        speaks=tuple(speaks),
        horovod_built=horovod_fits(pair),
        note=note,
    )


def _questions(packages: Packages) -> list[Callable[..., Agreement]]:
    with_horovod = packages.horovod is not None and packages.tensorflow is not None
    return [ask_mpi4py, ask_horovod] if with_horovod else [ask_mpi4py]


def _asked(
    seen: LauncherSeen, asks: Sequence[Callable[[], Agreement]], tell: Callable[[str], None]
) -> LauncherSeen:
    """`seen` with what two ranks say: through mpi4py, and if they met, through Horovod."""
    called = f"{seen.name} {seen.version}"
    tell(f"starting two ranks with {called}")
    two_ranks = asks[0]()
    seen = replace(seen, two_ranks=two_ranks)
    for ask in asks[1:] if two_ranks.problem is None else ():
        tell(f"starting two ranks with Horovod and {called}: they load TensorFlow")
        seen = replace(seen, horovod=ask())
    return seen


def _works(seen: LauncherSeen, asked: bool) -> bool:
    if seen.note:
        return False
    return not asked or (seen.two_ranks is not None and seen.two_ranks.problem is None)


def _unusable(sightings: Sequence[Sighting]) -> Iterator[Unusable]:
    """Without another name for a launcher that is there, such as Intel's mpirun for its mpiexec."""
    usable = [one.pair for one in sightings if one.pair is not None]
    for one in sightings:
        if one.pair is None and not any(map(one.is_of, usable)):
            yield Unusable(program=str(one.program), where=one.where, reason=one.reason)


def _chosen(environ: Mapping[str, str]) -> Chosen:
    """As for a job that says nothing of it."""
    slurm = wants_slurm(JobSpec(name="doctor"), environ)
    scheduler = "slurm" if slurm else "local"
    try:
        site = find_site(None, environ) if slurm else None
        launcher = choose_launcher("auto", RANKS, environ, site=site)
    except ClustersegError as error:
        return Chosen(scheduler=scheduler, problem=error.message, help=error.help)
    return Chosen(
        scheduler=scheduler,
        launcher=launcher.dialect.name,
        version=launcher.pair.version,
        program=launcher.pair.program,
        why=launcher.why,
    )


def _slurm(sightings: Sequence[Sighting], environ: Mapping[str, str]) -> SlurmSeen | None:
    srun = next((one.pair for one in sightings if one.pair and one.name == "srun"), None)
    file = configuration_file(environ)
    if srun is None and file is None:
        return None
    return SlurmSeen(
        version="" if srun is None else srun.version,
        cluster=present_cluster(environ),
        site=find_site(None, environ).name,
        configuration=None if file is None else str(file),
        job=environ.get("SLURM_JOB_ID"),
    )


def _packages() -> Packages:
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 (30 ms)

    def installed(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    return Packages(
        python=sys.version.split(maxsplit=1)[0],
        executable=str(Path(sys.executable)),
        clusterseg=__version__,
        mpi4py=installed("mpi4py"),
        tensorflow=installed("tensorflow"),
        horovod=installed("horovod"),
        horovod_build=horovod_build(),
    )
