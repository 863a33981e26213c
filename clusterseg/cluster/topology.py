"""What this host is like: cores, sockets, NUMA nodes, hardware threads, from the kernel's files."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from clusterseg.plan.model import Host

_SYSTEM = Path("/sys/devices/system")


def this_host(system: Path = _SYSTEM) -> Host:
    """This host, counting only what this process may use (its affinity, a cpuset).

    `cores` are physical cores: two hardware threads of one core count once. Where the kernel
    does not say (some containers hide /sys), every CPU counts as a core of its own.
    """
    cpus = os.sched_getaffinity(0)
    places = {cpu: _place(system, cpu) for cpu in cpus}
    threads_on = Counter(places.values())
    nodes = {node for cpu in cpus for node in _numa_nodes(system, cpu)}
    return Host(
        name=os.uname().nodename,
        cores=len(threads_on),
        sockets=len({package for package, _ in threads_on}),
        threads_per_core=max(threads_on.values()),
        numa_nodes=max(1, len(nodes)),
        here=True,
    )


def is_here(name: str, here: str) -> bool:
    """Whether a host name is this host's, with its domain on either side or on none."""
    if name in (here, "localhost"):
        return True
    short = ("." in name) != ("." in here)
    return short and name.partition(".")[0] == here.partition(".")[0]


def _place(system: Path, cpu: int) -> tuple[int, int]:
    """The (socket, core) of a CPU; core ids are only unique within a socket."""
    topology = system / "cpu" / f"cpu{cpu}" / "topology"
    try:
        package = int((topology / "physical_package_id").read_text())
        siblings = (topology / "thread_siblings_list").read_text()
    except (OSError, ValueError):
        return 0, cpu
    # A core is named by the first of its threads: core_id itself repeats on some machines.
    first = siblings.replace("-", ",").split(",", 1)[0]
    return package, int(first)


def _numa_nodes(system: Path, cpu: int) -> list[str]:
    return [entry.name for entry in (system / "cpu" / f"cpu{cpu}").glob("node[0-9]*")]
