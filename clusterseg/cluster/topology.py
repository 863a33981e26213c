"""What this host is like: cores, sockets, NUMA nodes, hardware threads, from the kernel's files."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from clusterseg.plan.model import Host
from clusterseg.runs.affinity import SYSTEM, cpu_places


def this_host(system: Path = SYSTEM) -> Host:
    """This host, counting only what this process may use (its affinity, a cpuset).

    `cores` are physical cores: two hardware threads of one core count once. Where the kernel
    does not say (some containers hide /sys), every CPU counts as a core of its own.
    """
    places = cpu_places(os.sched_getaffinity(0), system)
    threads_on = Counter((place.socket, place.core) for place in places.values())
    nodes: dict[int, dict[int, set[int]]] = {}
    for place in places.values():
        nodes.setdefault(place.socket, {}).setdefault(place.numa, set()).add(place.core)
    shape = tuple(
        tuple(len(cores) for _, cores in sorted(of_socket.items()))
        for _, of_socket in sorted(nodes.items())
    )
    return Host(
        name=os.uname().nodename,
        cores=len(threads_on),
        sockets=len(shape),
        threads_per_core=max(threads_on.values()),
        numa_nodes=len({place.numa for place in places.values()}),
        shape=shape,
        here=True,
    )


def is_here(name: str, here: str) -> bool:
    """Whether a host name is this host's, with its domain on either side or on none."""
    if name in (here, "localhost"):
        return True
    short = ("." in name) != ("." in here)
    return short and name.partition(".")[0] == here.partition(".")[0]
