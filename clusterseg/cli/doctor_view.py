"""What `clusterseg doctor` shows: a table of launchers, then what else there is to know."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from clusterseg.cli.output import safe, table
from clusterseg.plan.words import counted
from clusterseg.runs.files import same_file

if TYPE_CHECKING:
    from rich.table import Table

    from clusterseg.cluster.agreement import Agreement
    from clusterseg.submit.doctor import LauncherSeen, Packages, Report, Topology

_HEADER = ("LAUNCHER", "VERSION", "TWO RANKS", "LIBRARY", "SECONDS", "HOROVOD", "FOUND")
_NONE = "-"


def plain_table(report: Report) -> list[str]:
    """The launchers as aligned lines of any length, for a pipe or a file."""
    return table(_HEADER, _rows(report))


def rich_table(report: Report) -> Table:
    """The launchers as a table that folds what is too long for the terminal."""
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, header_style="bold")
    for title in _HEADER:
        shown.add_column(title, overflow="fold", no_wrap=title in {"LAUNCHER", "VERSION"})
    for row in _rows(report):
        styles = {"agree": "green", "disagree": "red"}
        shown.add_row(*(Text(safe(cell), style=styles.get(cell, "")) for cell in row))
    return shown


def facts(report: Report) -> Iterator[str]:
    """Everything else, a line each; the last one is what `launcher: auto` takes, and why."""
    yield ""
    for seen in report.launchers:
        if seen.program:
            libmpi = "" if seen.libmpi is None else f", its libmpi {seen.libmpi}"
            yield f"{seen.name} {seen.version}: {seen.program}{libmpi}"
        yield from _troubles(seen)
        if seen.speaks:
            yield f"{seen.name} --mpi: {', '.join(seen.speaks)}"
    for unusable in report.unusable:
        yield f"not usable: {unusable.program} ({unusable.where}) {unusable.reason}"
    yield f"host: {_topology(report.topology)}"
    yield f"python: {_packages(report.packages)}"
    yield f"horovod: {_horovod(report)}"
    yield f"slurm: {_slurm(report)}"
    yield from _chosen(report)


def _rows(report: Report) -> list[list[str]]:
    with_horovod = report.packages.horovod is not None
    return [
        [
            seen.name,
            seen.version or _NONE,
            seen.note or _word(seen.two_ranks),
            _NONE if seen.two_ranks is None else seen.two_ranks.library or _NONE,
            _NONE if seen.two_ranks is None else f"{seen.two_ranks.seconds:.1f}",
            _word(seen.horovod) if with_horovod and not seen.note else _NONE,
            seen.where or "always",
        ]
        for seen in report.launchers
    ]


def _word(found: Agreement | None) -> str:
    if found is None:
        return "not asked"
    return "agree" if found.problem is None else "disagree"


def _troubles(seen: LauncherSeen) -> Iterator[str]:
    called = f"{seen.name} {seen.version}"
    if seen.two_ranks is not None:
        if seen.two_ranks.problem is not None:
            yield f"{called}: {seen.two_ranks.problem}"
        loaded = seen.two_ranks.loaded
        if loaded and not any(same_file(seen.libmpi, file) for file in loaded):
            yield (
                f"{called}: the ranks loaded {' and '.join(loaded)}, not this launcher's own "
                f"{seen.libmpi}: this mpi4py does not heed MPI4PY_LIBMPI"
            )
    if seen.horovod is not None and seen.horovod.problem is not None:
        yield f"{called}, Horovod: {seen.horovod.problem}"
    elif seen.horovod is not None and not seen.horovod_built:
        yield (
            f"{called}, Horovod: it works, but has no record of a build for this MPI, so that "
            "communicator: auto does not take it (make horovod)"
        )


def _topology(seen: Topology) -> str:
    host = seen.host
    cores = counted(host.cores or 0, "core")
    return (
        f"{host.name}: {counted(host.sockets, 'socket')}, "
        f"{counted(host.numa_nodes, 'NUMA node')}, {cores}, "
        f"{counted(host.threads_per_core, 'thread')} a core; this process may use "
        f"{len(seen.cpus)} of {counted(seen.online, 'CPU')}"
    )


def _packages(seen: Packages) -> str:
    versions = [
        f"{title} {version or 'not installed'}"
        for title, version in (
            ("clusterseg", seen.clusterseg),
            ("mpi4py", seen.mpi4py),
            ("TensorFlow", seen.tensorflow),
        )
    ]
    return f"{seen.python} ({seen.executable}), {', '.join(versions)}"


def _horovod(report: Report) -> str:
    seen = report.packages
    if seen.horovod is None:
        return "not installed (make horovod builds it); ranks of a training then speak mpi4py"
    build = seen.horovod_build
    if build is None:
        return f"{seen.horovod}, without a record of what it was built for (make horovod)"
    pairs = [f"{one.name} {one.version}" for one in report.launchers if one.horovod_built]
    there = f", which is {' and '.join(pairs)}" if pairs else ", which is no launcher's here"
    other = "" if build.for_this_tensorflow else ", which is not the installed one"
    return (
        f"{seen.horovod}, built for TensorFlow {build.tensorflow}{other}, and for the MPI "
        f"{build.mpi_version} of {build.libmpi}{there}"
    )


def _slurm(report: Report) -> str:
    seen = report.slurm
    if seen is None:
        return "none here"
    where = f", in job {seen.job}" if seen.job else ""
    return (
        f"{seen.version or 'without srun'}, cluster {seen.cluster or 'unknown'} "
        f"({seen.configuration or 'no slurm.conf in sight'}), site {seen.site}{where}"
    )


def _chosen(report: Report) -> Iterator[str]:
    chosen = report.chosen
    if chosen.problem is not None:
        yield from f"launcher: auto takes none: {chosen.problem}".splitlines()
        if chosen.help is not None:
            yield f"help: {chosen.help}"
        return
    program = f" ({chosen.program})" if chosen.program else ""
    taken = f"{chosen.launcher} {chosen.version}".rstrip()
    asked = [one for one in report.launchers if one.two_ranks is not None]
    broken = {one.program for one in asked if one.two_ranks and one.two_ranks.problem is not None}
    if chosen.program in broken:
        good = next((one.name for one in asked if one.program not in broken), None)
        instead = f"give launcher: {good}" if good else "no launcher here works"
        yield f"warning: {taken} is taken by launcher: auto, but its ranks disagree; {instead}"
    yield f"launcher: auto takes {taken}{program}, because {chosen.why}"
