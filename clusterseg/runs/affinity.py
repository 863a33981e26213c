"""Where a process may run: its CPUs, and the cores, sockets and NUMA nodes that these belong to.

Read by every rank at its start, and by whoever plans for this host, from the same files of the
kernel (Documentation/admin-guide/cputopology.rst), so that both count alike.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

SYSTEM = Path("/sys/devices/system")


class CpuPlace(Struct, frozen=True):
    """The socket of a CPU, its physical core (named by the first of its threads), its NUMA node.

    Where the kernel does not say (some containers hide /sys), a CPU is a core of its own on
    socket 0 and node 0.
    """

    socket: int
    core: int
    numa: int


class Standing(Struct, frozen=True, kw_only=True):
    """The CPUs that a process may use; `cores` are written `socket.first-thread`. All sorted."""

    cpus: list[int]
    cores: list[str]
    sockets: list[int]
    numa: list[int]


def standing(system: Path = SYSTEM) -> Standing:
    """Where this process may run (its affinity, within its cpuset)."""
    places = cpu_places(os.sched_getaffinity(0), system)
    cores = sorted({(place.socket, place.core) for place in places.values()})
    return Standing(
        cpus=sorted(places),
        cores=[f"{socket}.{core}" for socket, core in cores],
        sockets=sorted({place.socket for place in places.values()}),
        numa=sorted({place.numa for place in places.values()}),
    )


def cpu_places(cpus: Iterable[int], system: Path = SYSTEM) -> dict[int, CpuPlace]:
    """The place of each of `cpus`."""
    return {cpu: _place(system, cpu) for cpu in cpus}


def _place(system: Path, cpu: int) -> CpuPlace:
    folder = system / "cpu" / f"cpu{cpu}"
    try:
        socket = int((folder / "topology" / "physical_package_id").read_text())
        siblings = (folder / "topology" / "thread_siblings_list").read_text()
        # A core is named by the first of its threads: core_id itself repeats on some machines.
        core = int(siblings.replace("-", ",").split(",", 1)[0])
    except (OSError, ValueError):
        socket, core = 0, cpu
    return CpuPlace(socket, core, _numa_node(folder))


def _numa_node(folder: Path) -> int:
    nodes = [
        int(entry.name.removeprefix("node"))
        for entry in folder.glob("node[0-9]*")
        if entry.name.removeprefix("node").isdigit()
    ]
    return min(nodes, default=0)
