"""Whether the hosts that a job names exist, as far as this host can tell before anything starts."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase

from clusterseg.cluster.topology import is_here
from clusterseg.errors import ClustersegError
from clusterseg.plan.model import Plan
from clusterseg.plan.symbols import shown_hosts

_NO_SUCH = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
_PATIENCE = 5.0  # seconds for all names: a name server may be slow
_SSH_PATIENCE = 5.0
_SHOWN = 4
# What makes a launcher reach hosts in another way than by ssh and their names.
_OTHER_WAYS = (
    "OMPI_MCA_plm*",
    "PRTE_MCA_plm*",
    "HYDRA_LAUNCHER*",
    "HYDRA_BOOTSTRAP*",
    "I_MPI_HYDRA_BOOTSTRAP*",
)


def refuse_unknown_hosts(plan: Plan, environ: Mapping[str, str]) -> None:
    """Raises ClustersegError for hosts that a local job names and nobody knows.

    Where the launcher was told how to reach hosts (launcher_args, its variables), names are its
    business, and nothing is refused.
    """
    if plan.slurm is not None or plan.spec.resources.hosts is None or plan.spec.launcher_args:
        return
    names = {*environ, *plan.spec.environment.variables}
    if any(fnmatchcase(name, pattern) for name in names for pattern in _OTHER_WAYS):
        return
    here = os.uname().nodename
    unknown = unknown_hosts(name for name in plan.hosts if not is_here(name, here))
    if unknown:
        raise ClustersegError(
            f"resources.hosts: {shown_hosts(unknown)}: no such host",
            code="unknown-host",
            help="mend the name; a host that only ssh knows stands in ~/.ssh/config",
        )


def unknown_hosts(
    names: Iterable[str],
    *,
    resolve: Callable[[str], object] | None = None,
    ssh_name: Callable[[str], str | None] | None = None,
    patience: float = _PATIENCE,
) -> list[str]:
    """The first few of `names` that are no host's: neither the resolver's nor those of ssh.

    `resolve` raises socket.gaierror; only a firm "no such name" counts, not a name server that is
    silent. `ssh_name` is what ssh calls a host; None: it reaches it in another way, over a proxy.
    """
    resolve, ssh_name = resolve or _resolve, ssh_name or _ssh_name
    unknown: list[str] = []
    until = time.monotonic() + patience
    for name in names:
        if len(unknown) == _SHOWN or time.monotonic() > until:
            break
        if _is_known(name, resolve):
            continue
        other = ssh_name(name)
        if other is not None and (other == name or not _is_known(other, resolve)):
            unknown.append(name)
    return unknown


def _is_known(name: str, resolve: Callable[[str], object]) -> bool:
    try:
        resolve(name)
    except socket.gaierror as error:
        return error.errno not in _NO_SUCH
    except UnicodeError:  # a label that is too long for DNS
        return False
    return True


def _resolve(name: str) -> object:
    return socket.getaddrinfo(name, None)


def _ssh_name(host: str) -> str | None:
    """The HostName that ssh's configuration gives to `host` (ssh -G reads it, and connects to
    nothing)."""
    ssh = shutil.which("ssh")
    if ssh is None:
        return host
    try:
        done = subprocess.run(
            [ssh, "-G", "--", host],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SSH_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    said = dict(line.partition(" ")[::2] for line in done.stdout.splitlines())
    if any(said.get(key, "none") != "none" for key in ("proxyjump", "proxycommand")):
        return None
    return said.get("hostname", host)
