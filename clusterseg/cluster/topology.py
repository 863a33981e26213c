"""What this host is like: cores, sockets, NUMA nodes, hardware threads, from the kernel's files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Set
from pathlib import Path
from threading import Thread

from clusterseg.plan.model import Host
from clusterseg.runs.affinity import SYSTEM, cpu_places

_MOST_CPUS = 8192  # NR_CPUS of the largest kernels


def this_host(system: Path = SYSTEM, cpuset: Callable[[], Set[int]] | None = None) -> Host:
    """This host, counting only what this process may use (its affinity, a cpuset).

    `cores` are physical cores: two hardware threads of one core count once. Where the kernel
    does not say (some containers hide /sys), every CPU counts as a core of its own. `cpuset` says
    which CPUs this process could give itself, if not `own_cpuset`.
    """
    affinity = os.sched_getaffinity(0)
    places = cpu_places(affinity, system)
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
        own_cores=_own_cores(affinity, (cpuset or own_cpuset)(), system),
        here=True,
    )


def own_cpuset() -> Set[int]:
    """The CPUs that this process could give itself: those of its cpuset.

    Asked by taking all of them, of which the kernel gives those of the cpuset
    (sched_setaffinity(2)), in a thread of its own: on Linux an affinity is a thread's.
    """
    found: list[Set[int]] = []

    def ask() -> None:
        try:
            os.sched_setaffinity(0, range(_MOST_CPUS))
        except OSError:  # forbidden in some sandboxes
            return
        found.append(os.sched_getaffinity(0))

    thread = Thread(target=ask)
    thread.start()
    thread.join()
    return found[0] if found else os.sched_getaffinity(0)


def _own_cores(affinity: Set[int], cpuset: Set[int], system: Path) -> tuple[int, ...] | None:
    """Of the cpuset's cores, in hwloc's order, those of the affinity; None if these are all.

    Empty where a core is there only in part: whoever is given the core would take the rest too.
    """
    if cpuset <= affinity:
        return None
    cores: dict[tuple[int, int, int], set[int]] = {}
    for cpu, place in cpu_places(cpuset, system).items():
        cores.setdefault((place.socket, place.numa, place.core), set()).add(cpu)
    own = []
    for number, (_, threads) in enumerate(sorted(cores.items())):
        if threads <= affinity:
            own.append(number)
        elif threads & affinity:
            return ()
    return tuple(own)


def is_here(name: str, here: str) -> bool:
    """Whether a host name is this host's, with its domain on either side or on none (DNS tells no
    case apart)."""
    name, here = name.lower(), here.lower()
    if name in (here, "localhost"):
        return True
    short = ("." in name) != ("." in here)
    return short and name.partition(".")[0] == here.partition(".")[0]
