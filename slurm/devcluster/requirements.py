"""What a cluster needs of this machine: root, programs (and the Debian packages that hold them)."""

from __future__ import annotations

import os
import re
import shutil
import socket
from pathlib import Path

from failure import DevclusterError
from layout import MAX_NODES, Cluster, Options
from processes import run

_OLDEST = (22, 5)
# Exit code: this machine can't have a cluster (the tests that need one are skipped).
UNABLE = 3
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PACKAGES = {
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "srun": "slurm-client",
    "munged": "munge",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
}
_ACCOUNTING = {
    "slurmdbd": "slurmdbd",
    "mariadbd": "mariadb-server-core",
    "mariadb-install-db": "mariadb-server-core",
    "my_print_defaults": "mariadb-client-core",  # mariadb-install-db calls it
}
# Slurm's PMIx plug-in opens this very name, which only the development package has.
_PMIX = ("/usr/lib/*/libpmix.so", "/usr/lib/*/pmix2/lib/libpmix.so")
_CAP_NET_ADMIN, _CAP_SYS_ADMIN = 1 << 12, 1 << 21  # linux/capability.h


def check(options: Options) -> None:
    """Refuses a cluster that this machine can't have; says what to install."""
    if not 1 <= options.nodes <= MAX_NODES:
        raise DevclusterError(
            f"--nodes {options.nodes}: 1 to {MAX_NODES} are possible", exit_code=2
        )
    if not 1 <= options.cores <= 256:
        raise DevclusterError(f"--cores {options.cores}: 1 to 256 are possible", exit_code=2)
    must_be_root()
    wanted = {**_PACKAGES, **(_ACCOUNTING if options.accounting else {})}
    if missing := [name for name in wanted if not find(name)]:
        packages = " ".join(sorted({wanted[name] for name in missing}))
        raise DevclusterError(
            f"missing programs: {', '.join(missing)}",
            help=f"on Debian or Ubuntu: apt-get install --no-install-recommends {packages}",
            exit_code=UNABLE,
        )
    if (version := slurm_version()) < _OLDEST:
        raise DevclusterError(
            f"Slurm {version[0]}.{version[1]:02} is too old: it takes 22.05 or later",
            exit_code=UNABLE,
        )
    if re.fullmatch(r"n\d+", controller_host()):
        raise DevclusterError(
            f"this machine is called {controller_host()}, as a node of the cluster would be",
            help="give it another name: hostname NAME",
            exit_code=UNABLE,
        )


def must_be_root() -> None:
    if os.geteuid() != 0:
        raise DevclusterError(
            "only root may do this: it makes network namespaces",
            help="run it with sudo",
            exit_code=UNABLE,
        )
    status = Path("/proc/self/status").read_text()
    match = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    if match and ~int(match[1], 16) & (_CAP_NET_ADMIN | _CAP_SYS_ADMIN):
        raise DevclusterError(
            "this root may not make networks and mounts (an unprivileged container?)",
            help="run it on the machine itself, or in a container with --privileged",
            exit_code=UNABLE,
        )


def notes(cluster: Cluster) -> list[str]:
    """What will not work on this cluster, with the remedy."""
    found = []
    if not any(any(Path("/").glob(pattern[1:])) for pattern in _PMIX):
        install = "apt-get install --no-install-recommends libpmix-dev"
        found.append(f"`srun --mpi=pmix` will not work: {install}")
    if not cluster.can_bind:
        found.append(
            f"ranks can't be bound to cores: a node has {cluster.options.cores}, "
            f"this machine {os.cpu_count()}"
        )
    return found


def find(program: str) -> str | None:
    """Its path; a user's PATH may lack the sbin folders."""
    return shutil.which(program, path=SYSTEM_PATH)


def slurm_version() -> tuple[int, ...]:
    """(22, 5) for "slurm-wlm 22.05.8"."""
    said = run("slurmctld", "-V", environ={"PATH": SYSTEM_PATH})
    match = re.search(r"(\d+)\.(\d+)", said)
    if not match:
        raise DevclusterError(f"slurmctld -V says no version: {said.strip()!r}")
    return int(match[1]), int(match[2])


def node_memory_mb(nodes: int) -> int:
    """MiB that each node says it has: together three quarters of the machine's memory."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
    return max(64, total * 3 // 4 // nodes)


def unified_cgroups() -> bool:
    """Whether the machine has cgroup v2 only."""
    return Path("/sys/fs/cgroup/cgroup.controllers").exists()


def controller_host() -> str:
    return socket.gethostname().split(".")[0]
