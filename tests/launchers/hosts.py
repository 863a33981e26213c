"""Several hosts on one machine: a stand-in for ssh, for the launchers that start ranks by it."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]

# How each launcher is told which program to use for ssh; `{}` is that program.
_AGENT = {
    "openmpi4": ("--mca", "plm_rsh_agent", "{}"),
    "openmpi5": ("--prtemca", "plm_ssh_agent", "{}"),
    "mpich": ("-launcher", "ssh", "-launcher-exec", "{}"),
    "intelmpi": ("-launcher", "ssh", "-launcher-exec", "{}"),
}


@dataclass(frozen=True)
class Hosts:
    """Hosts that are this machine under other names: what runs there sees another `uname -n`, in
    the environment of a fresh login. CPUs, files and processes are this machine's."""

    names: tuple[str, ...]
    agent: Path

    def launcher_args(self, launcher: str) -> list[str]:
        """The `launcher_args` with which `launcher` reaches them."""
        return [word.format(self.agent) for word in _AGENT[launcher]]


def make_hosts(count: int, folder: Path, environ: Mapping[str, str] = {}) -> Hosts:
    """The hosts n1 … n<count>, by a script in `folder`; `environ` is added to a login's there.

    Raises OSError, with the reason, where this user may not give itself another host name.
    """
    alone = ["unshare", "--uts"] if os.geteuid() == 0 else _AS_USER
    tried = subprocess.run([*alone, "hostname", "n1"], capture_output=True, text=True, check=False)
    if tried.returncode:
        raise OSError(f"no host names of one's own here: {tried.stderr.strip()}")
    login = {"HOME": str(Path.home()), "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh", **environ}
    # As /tmp of a host of its own: without what launchers of other tests have left in this one's.
    login["TMPDIR"] = str(folder / "tmp")
    (folder / "tmp").mkdir(exist_ok=True)
    variables = shlex.join(f"{name}={value}" for name, value in login.items())
    agent = folder / "ssh"
    agent.write_text(_AGENT_SCRIPT.format(variables=variables, alone=shlex.join(alone)))
    agent.chmod(0o755)
    return Hosts(tuple(f"n{number}" for number in range(1, count + 1)), agent)


@cache
def network_alone() -> tuple[str, ...]:
    """The words before a command that give it a network of its own, which ends with it.

    MPIs take whatever interface there is, be it the bridge of a Slurm that another test takes down
    meanwhile: then ranks fail, or wait for ever. Who may have no such network can't have such a
    Slurm either, and gets no words.
    """
    words = ("unshare", "--net", "sh", "-c", _NETWORK, _address())
    tried = subprocess.run([*words, "true"], capture_output=True, check=False)
    return () if tried.returncode else words


def _address() -> str:
    """What this host's name stands for, by which launchers are called back."""
    try:
        found = socket.gethostbyname(socket.gethostname())
    except OSError:
        found = "127.0.0.1"
    return "192.0.2.1" if found.startswith("127.") else found  # no MPI takes that for a network


# Open MPI leaves out the loopback, so there is a second interface, with nothing at its other end.
_NETWORK = """ip link set lo up &&
ip link add eth0 type veth peer name eth1 && ip address add "$0/24" dev eth0 &&
ip link set eth0 up && ip link set eth1 up && exec "$@"
"""

_AS_USER = ["unshare", "--user", "--map-root-user", "--uts"]

# As ssh: options, the host, then words that the host's shell takes for one command line.
_AGENT_SCRIPT = """#!/bin/sh
while case "$1" in -*) true;; *) false;; esac; do shift; done
host=$1; shift
exec env -i {variables} {alone} \\
  sh -c 'hostname "$1" && shift && exec sh -c "$*"' sh "$host" "$@"
"""
