"""One network a cluster (a bridge), one network namespace a node (iproute2).

The bridge is the lock on an index: `ip link add` fails if another cluster was quicker. Its
hardware address says from the first moment whose it is, so nothing that is found later has to
be believed to be ours.
"""

from __future__ import annotations

from pathlib import Path

from failure import DevclusterError
from layout import Cluster, bridge_name, port_prefix
from processes import Process, identify, run

INDEXES = range(100)


def take_index(mark: str) -> int:
    """Makes a bridge with the first free index and returns the index."""
    for index in INDEXES:
        if _bridge(index).exists() or leftovers(index) or _routes(index):
            continue
        try:
            _add_bridge(index, mark)
        except DevclusterError:
            if _bridge(index).exists():
                continue
            raise
        return index
    raise DevclusterError(
        "no free network among 10.77.0.0/24 to 10.77.99.0/24",
        help="`devcluster status` lists the clusters; `devcluster down --all` takes them down",
    )


def own_index(mark: str) -> int | None:
    """The index whose bridge bears `mark`."""
    for index in INDEXES:
        try:
            if (_bridge(index) / "address").read_text().strip() == mark:
                return index
        except OSError:
            continue
    return None


def make(cluster: Cluster) -> None:
    """The controller's address on the bridge; a namespace with lo and eth0 for every node."""
    bridge = cluster.bridge
    run("ip", "addr", "add", f"{cluster.controller_address}/24", "dev", bridge)
    run("ip", "link", "set", bridge, "up")
    for node in cluster.node_names:
        run("ip", "netns", "add", cluster.namespace(node))
    links, inside = [], {}
    for node in cluster.node_names:
        space, port = cluster.namespace(node), cluster.port(node)
        links.append(f"link add {port} type veth peer name eth0 netns {space}")
        links.append(f"link set {port} master {bridge} up")
        inside[space] = [
            f"addr add {cluster.address(node)}/24 dev eth0",
            "link set eth0 up",
            "link set lo up",
        ]
    run("ip", "-batch", "-", stdin="\n".join(links) + "\n")
    for space, lines in inside.items():
        run("ip", "-n", space, "-batch", "-", stdin="\n".join(lines) + "\n")


def set_cable(cluster: Cluster, node: str, *, plugged: bool) -> None:
    """Cuts a node off from everything, or joins it again."""
    run("ip", "link", "set", cluster.port(node), "up" if plugged else "down")


def processes(index: int) -> list[Process]:
    """All that runs on the nodes of a network: daemons, jobs, and what jobs left behind."""
    return [process for space in _namespaces(index) for process in _processes_in(space)]


def processes_on(cluster: Cluster, node: str) -> list[Process]:
    """The same of one node."""
    return _processes_in(cluster.namespace(node))


def _processes_in(space: str) -> list[Process]:
    pids = run("ip", "netns", "pids", space).split()
    return [process for pid in pids if (process := identify(int(pid)))]


def remove(index: int, mark: str) -> None:
    """Removes cables and namespaces, and the bridge last."""
    if not _bridge(index).exists():
        _add_bridge(index, mark)  # someone removed it by hand; the index is ours again
    # The kernel would remove a namespace's cable with it, but only some time later.
    for port in _ports(index):
        run("ip", "link", "delete", port)
    for space in _namespaces(index):
        run("ip", "netns", "delete", space)
    run("ip", "link", "delete", bridge_name(index), "type", "bridge")


def leftovers(index: int) -> bool:
    """Whether something of the index remains though its bridge is gone."""
    return not _bridge(index).exists() and bool(_namespaces(index) or _ports(index))


def _add_bridge(index: int, mark: str) -> None:
    run("ip", "link", "add", bridge_name(index), "address", mark, "type", "bridge")


def _bridge(index: int) -> Path:
    return Path("/sys/class/net") / bridge_name(index)


def _namespaces(index: int) -> list[str]:
    folder = Path("/run/netns")
    prefix = f"{bridge_name(index)}-"
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if entry.name.startswith(prefix))


def _ports(index: int) -> list[str]:
    return [path.name for path in Path("/sys/class/net").glob(f"{port_prefix(index)}*")]


def _routes(index: int) -> bool:
    """Whether the machine already has a way to these addresses (a VPN, another bridge)."""
    return bool(run("ip", "-4", "route", "show", "to", "root", f"10.77.{index}.0/24").strip())
