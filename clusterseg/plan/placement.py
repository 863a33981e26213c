"""Where ranks go and what they are bound to: what a launcher can say of it, and what to warn of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from clusterseg.errors import ClustersegError
from clusterseg.plan.dialect import Dialect, Meaning
from clusterseg.plan.model import Geometry, Host
from clusterseg.plan.symbols import is_symbolic, shown_hosts
from clusterseg.plan.words import counted
from clusterseg.spec.model import JobSpec

_HOST_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
_BIND: dict[str, Meaning] = {
    "core": "bind_core",
    "socket": "bind_socket",
    "numa": "bind_numa",
    "none": "bind_none",
}
# The meanings that lay ranks out: one of them stands on every line.
BINDINGS: frozenset[Meaning] = frozenset({*_BIND.values(), "oversubscribe"})


def binding(spec: JobSpec, dialect: Dialect, geometry: Geometry, host_list: bool) -> Meaning:
    """The meaning that says how ranks are laid out and bound; refuses what can't be said."""
    map_by, bind_to = spec.placement.map_by, spec.placement.bind_to
    if dialect.map and map_by not in dialect.map:
        raise _inexpressible(
            f"map_by: the launcher {dialect.name} can't map by {map_by}", dialect.map
        )
    if geometry.ranks_per_node is None and map_by in dialect.equal_only:
        raise _inexpressible(
            f"map_by: the launcher {dialect.name} can't map unequal hosts by {map_by}",
            [name for name in dialect.map if name not in dialect.equal_only],
        )
    if geometry.oversubscribed:
        # With a list of hosts, it says itself how many ranks each takes.
        bare = not host_list and dialect.can("oversubscribe")
        return "oversubscribe" if bare else "bind_none"
    can = [name for name, meaning in _BIND.items() if dialect.can(meaning)]
    if can == ["none"]:
        return "bind_none"  # it never binds: core_warnings says what that means
    can = [name for name in can if name not in dialect.cannot.get(map_by, ())]
    if bind_to not in can:
        raise _inexpressible(
            f"bind_to: the launcher {dialect.name} can't bind to {bind_to} with map_by: {map_by}",
            can,
        )
    return _BIND[bind_to]


def check_hosts(geometry: Geometry) -> None:
    """Refuses names that no host can have: they go into a host file and onto the launch line."""
    for name in geometry.hosts:
        if not _HOST_NAME.fullmatch(name):
            raise ClustersegError(
                f"resources.hosts: {name!r} is not a host name",
                code="host-name",
                help="letters, digits, '.', '-' and '_', beginning with a letter or digit",
            )


def check_launcher(geometry: Geometry, dialect: Dialect, host_list: bool) -> None:
    """Refuses a launcher that can't start so many ranks, or (`host_list`) on hosts by name."""
    if dialect.most_ranks is not None and geometry.ranks > dialect.most_ranks:
        raise ClustersegError(
            f"launcher: {dialect.name} starts at most {counted(dialect.most_ranks, 'rank')}, "
            f"but ranks = {geometry.ranks}",
            code="launcher-ranks",
            help="use a launcher with MPI, such as launcher: auto with an MPI installed",
        )
    if host_list and not dialect.can("hosts"):
        raise ClustersegError(
            f"launcher: {dialect.name} starts ranks on this host alone, "
            f"but hosts are {shown_hosts(geometry.hosts)}",
            code="launcher-hosts",
            help="use a launcher with MPI",
        )


def core_warnings(
    spec: JobSpec, dialect: Dialect, geometry: Geometry, hosts: Sequence[Host]
) -> list[str]:
    """What a person should know of the cores that ranks get; `hosts` are those that can be had."""
    warnings = []
    if geometry.oversubscribed:
        warnings.append("ranks share cores: they are not bound, and each will be slower")
    unknown = set(geometry.hosts) - {host.name for host in hosts if host.cores is not None}
    if any(map(is_symbolic, unknown)):
        warnings += _unknown_nodes(spec)
    elif unknown and spec.resources.cpus_per_rank == "auto":
        warnings.append(
            f"the cores of {shown_hosts(sorted(unknown))} are not known here: each rank gets one; "
            "give resources.cpus_per_rank"
        )
    cores = {host.name: host.cores or 0 for host in hosts}
    spare = any(
        count * geometry.cpus_per_rank < cores.get(name, 0)
        for name, count in geometry.hosts.items()
    )
    if spec.placement.bind_to != "none" and not dialect.can("bind_core") and spare:
        warnings.append(
            f"the launcher {dialect.name} does not bind: a rank may run on every core of its host"
        )
    return warnings


def _unknown_nodes(spec: JobSpec) -> list[str]:
    resources = spec.resources
    warnings = []
    if resources.cpus_per_rank == "auto":
        warnings.append(
            "how many cores a node has is not known (docs/sites.md): each rank gets one; give "
            "resources.cpus_per_rank"
        )
    given = (resources.nodes, resources.ranks_per_node)
    if resources.ranks not in (None, 1) and given == (None, None):
        warnings.append(
            f"how many cores a node has is not known: all {resources.ranks} ranks are to be on "
            "one; give resources.nodes"
        )
    return warnings


def far_warnings(far: Sequence[str]) -> list[str]:
    """What hosts must have that the launcher itself reaches, by ssh."""
    if not far:
        return []
    return [
        f"{shown_hosts(far)}: reached by the launcher over ssh; the run directory, this program "
        "and the data must be found there under the same paths"
    ]


def _inexpressible(what: str, can: Iterable[str]) -> ClustersegError:
    return ClustersegError(f"placement.{what}", code="placement", help=f"it can: {', '.join(can)}")
