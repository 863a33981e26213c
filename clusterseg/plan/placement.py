"""Where ranks go and what they are bound to: what a launcher can say of it, and what to warn of."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from clusterseg.errors import ClustersegError
from clusterseg.hostlist import compress, twice_named
from clusterseg.plan.dialect import Dialect, Meaning, placeholders
from clusterseg.plan.layout import most_in_nodes, shape_of
from clusterseg.plan.model import Geometry, Host
from clusterseg.plan.symbols import is_symbolic, shown_host, shown_hosts
from clusterseg.spec.fields import BindTo, MapBy
from clusterseg.spec.model import JobSpec, PlacementSpec

_HOST_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
_BIND: dict[BindTo, Meaning] = {
    "core": "bind_core",
    "socket": "bind_socket",
    "numa": "bind_numa",
    "none": "bind_none",
}
# The meanings that lay ranks out: one of them stands on every line.
BINDINGS: frozenset[Meaning] = frozenset({*_BIND.values(), "oversubscribe"})
# The launchers that a job could ask for, by name; only looked at for the text of a refusal.
Launchers = Callable[[], Mapping[str, Dialect]]
_PARTS: dict[BindTo, str] = {"socket": "sockets", "numa": "NUMA nodes"}


def binding(spec: JobSpec, dialect: Dialect, geometry: Geometry, host_list: bool) -> Meaning:
    """The meaning that says how ranks are laid out and bound; see `check_binding`."""
    if geometry.oversubscribed:
        # With a list of hosts, it says itself how many ranks each takes.
        bare = not host_list and dialect.can("oversubscribe")
        return "oversubscribe" if bare else "bind_none"
    if geometry.whole_hosts and _counts_cores(dialect) and dialect.can("bind_none"):
        return "bind_none"  # socket:PE=32 is more than a socket has
    if _never_binds(dialect):
        return "bind_none"  # core_warnings says what that means
    return _BIND[spec.placement.bind_to]


def check_binding(
    spec: JobSpec,
    dialect: Dialect,
    geometry: Geometry,
    hosts: Sequence[Host],
    others: Launchers,
) -> None:
    """Refuses a placement that the launcher can't express, with those of `others` that can."""
    unsaid = _unsaid(spec.placement, dialect, geometry, hosts)
    if unsaid is None:
        return
    what, can = unsaid
    able = [
        name
        for name, other in others().items()
        if other.map
        and not _never_binds(other)
        and (other.programs or _needs_no_mpi(spec, geometry))
        and _unsaid(spec.placement, other, geometry, hosts) is None
    ]
    help = f"it can: {', '.join(can)}" if can else ""
    who = f"launchers that can: {', '.join(able)}" if able else ""
    raise ClustersegError(
        f"placement.{what}", code="placement", help="; ".join(filter(None, (help, who)))
    )


def _unsaid(
    placement: PlacementSpec, dialect: Dialect, geometry: Geometry, hosts: Sequence[Host]
) -> tuple[str, Sequence[str]] | None:
    """What a launcher can't express, and what it can instead; None if it can express it."""
    map_by = placement.map_by
    if dialect.map and map_by not in dialect.map:
        return f"map_by: the launcher {dialect.name} can't map by {map_by}", list(dialect.map)
    if geometry.ranks_per_node is None and map_by in dialect.equal_only:
        return (
            f"map_by: the launcher {dialect.name} can't map unequal hosts by {map_by}",
            [name for name in dialect.map if name not in dialect.equal_only],
        )
    if geometry.oversubscribed or _never_binds(dialect):
        return None
    return _unbound(placement, dialect, geometry, hosts)


def _unbound(
    placement: PlacementSpec, dialect: Dialect, geometry: Geometry, hosts: Sequence[Host]
) -> tuple[str, Sequence[str]] | None:
    """As `_unsaid`, of what ranks are bound to."""
    map_by, bind_to = placement.map_by, placement.bind_to
    can = [name for name, meaning in _BIND.items() if dialect.can(meaning)]
    can = [name for name in can if name not in dialect.cannot.get(map_by, ())]
    if bind_to not in can:
        what = f"bind_to: the launcher {dialect.name} can't bind to {bind_to} with map_by: {map_by}"
        return what, can
    beyond = _beyond_own_cores(placement, dialect, geometry, hosts)
    if beyond is not None:
        return beyond, ["none"]
    if bind_to in dialect.only_one.get(map_by, ()):
        used = [host for host in hosts if host.name in geometry.hosts and host.cores is not None]
        several = next((host for host in used if _has_several(host, map_by, bind_to)), None)
        if several is not None:
            whose = "a socket" if map_by == "socket" else shown_host(several.name)
            what = (
                f"bind_to: with map_by: {map_by} the launcher {dialect.name} does not deal ranks "
                f"out as planned over the {_PARTS[bind_to]} of {whose}, which has several"
            )
            return what, [name for name in can if name not in dialect.only_one[map_by]]
    if bind_to == "core" and map_by in dialect.numa_first:
        return _short_of_numa(placement, dialect, geometry, hosts, can)
    return None


def _short_of_numa(
    placement: PlacementSpec,
    dialect: Dialect,
    geometry: Geometry,
    hosts: Sequence[Host],
    can: Sequence[str],
) -> tuple[str, Sequence[str]] | None:
    """Of a launcher that lets no two ranks share a NUMA node's rest: the host where it has to."""
    for host in hosts:
        count, cpus = geometry.hosts.get(host.name, 0), geometry.cpus_per_rank
        if count < 2 or host.cores is None:
            continue
        fits = most_in_nodes(shape_of(host), count, cpus, placement.map_by)
        if fits < cpus:
            what = (
                f"bind_to: the launcher {dialect.name} gives some of the {count} ranks on "
                f"{shown_host(host.name)} fewer than {cpus} cores, for the sake of its NUMA nodes; "
                f"with resources.cpus_per_rank: {fits} it does not"
            )
            return what, [name for name in can if name != "core"]
    return None


def _has_several(host: Host, map_by: MapBy, bind_to: BindTo) -> bool:
    """Whether a host, or by socket one of its sockets, has more than one of what is bound to."""
    shape = shape_of(host)
    if bind_to == "socket":
        return len(shape) > 1
    if map_by == "socket":
        return any(len(numa) > 1 for numa in shape)
    return sum(map(len, shape)) > 1


def _needs_no_mpi(spec: JobSpec, geometry: Geometry) -> bool:
    return geometry.nodes == 1 and (geometry.ranks == 1 or spec.train is None)


def _never_binds(dialect: Dialect) -> bool:
    return not any(dialect.can(meaning) for name, meaning in _BIND.items() if name != "none")


def _counts_cores(dialect: Dialect) -> bool:
    """Whether it says with the binding how many cores a rank has; Slurm knows that by itself."""
    texts = [*dialect.flags.get("bind_core", ()), *dialect.variables.get("bind_core", {}).values()]
    return any({"cpus", "processors"} & placeholders(text) for text in texts)


def cores_to_keep_to(
    spec: JobSpec, dialect: Dialect, geometry: Geometry, hosts: Sequence[Host]
) -> str | None:
    """The cores, as `0-3,8`, that the launcher must be told to leave all others alone; None: there
    are none to be told of."""
    cores = _own_cores(spec.placement, dialect, geometry, hosts)
    return None if cores is None else compress(map(str, cores)).strip("[]")


def _own_cores(
    placement: PlacementSpec, dialect: Dialect, geometry: Geometry, hosts: Sequence[Host]
) -> tuple[int, ...] | None:
    """Those of this host, where ranks are bound and this process may not use all cores."""
    bound = placement.bind_to != "none" and not geometry.oversubscribed and not geometry.whole_hosts
    if not bound or _never_binds(dialect):
        return None
    here = (host for host in hosts if host.here and host.name in geometry.hosts)
    return next((host.own_cores for host in here if host.own_cores is not None), None)


def _beyond_own_cores(
    placement: PlacementSpec, dialect: Dialect, geometry: Geometry, hosts: Sequence[Host]
) -> str | None:
    """Why ranks would be bound to cores that this process may not use; None if they would not."""
    cores = _own_cores(placement, dialect, geometry, hosts)
    if cores is None:
        return None
    told = "only_cores" in dialect.flags and bool(dialect.flags["only_cores"])
    if dialect.can("only_cores") and (not told or (cores and geometry.nodes == 1)):
        return None
    return (
        f"bind_to: the launcher {dialect.name} would bind ranks to cores that this process may not "
        "use: it heeds a cpuset, but not the affinity (taskset) that leaves fewer cores"
    )


def check_hosts(geometry: Geometry) -> None:
    """Refuses names that no host can have (they go into a host file and onto the launch line), and
    two names of one host."""
    for name in geometry.hosts:
        if not _HOST_NAME.fullmatch(name):
            raise ClustersegError(
                f"resources.hosts: {name!r} is not a host name",
                code="host-name",
                help="letters, digits, '.', '-' and '_', beginning with a letter or digit",
            )
    same = twice_named(geometry.hosts)
    if same is not None:
        raise ClustersegError(
            f"resources.hosts: {same[0]} and {same[1]} are the same host",
            code="host-name",
            help="name it once, with all its ranks",
        )


def check_launcher(
    geometry: Geometry, dialect: Dialect, host_list: bool, others: Launchers
) -> None:
    """Refuses a launcher of this host alone for others; `host_list`: they are given by name."""
    several = geometry.nodes > 1 and not dialect.programs
    if several or (host_list and not dialect.can("hosts")):
        able = [name for name, other in others().items() if other.can("hosts")]
        raise ClustersegError(
            f"launcher: {dialect.name} starts ranks on this host alone, "
            f"but hosts are {shown_hosts(geometry.hosts)}",
            code="launcher-hosts",
            help=f"use a launcher with MPI{_of(able)}",
        )


def _of(able: Sequence[str]) -> str:
    return f"; launchers that can: {', '.join(able)}" if able else ""


def core_warnings(
    spec: JobSpec, dialect: Dialect, geometry: Geometry, hosts: Sequence[Host]
) -> list[str]:
    """What a person should know of the cores that ranks get; `hosts` are those that can be had."""
    warnings = []
    cores = {host.name: host.cores or 0 for host in hosts}
    if geometry.oversubscribed:
        wanted = {name: count * geometry.cpus_per_rank for name, count in geometry.hosts.items()}
        fits = all(many <= cores.get(name, 0) for name, many in wanted.items())
        warnings.append(
            "the cores of a rank would lie on several sockets: ranks are not bound"
            if fits
            else "ranks share cores: they are not bound, and each will be slower"
        )
    unknown = set(geometry.hosts) - {host.name for host in hosts if host.cores is not None}
    if any(map(is_symbolic, unknown)):
        warnings += _unknown_nodes(spec)
    elif unknown and spec.resources.cpus_per_rank == "auto":
        warnings.append(
            f"the cores of {shown_hosts(sorted(unknown))} are not known here: each rank gets one; "
            "give resources.cpus_per_rank"
        )
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
