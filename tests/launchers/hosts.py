"""Several hosts on one machine: a stand-in for ssh, for the launchers that start ranks by it."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
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


_AS_USER = ["unshare", "--user", "--map-root-user", "--uts"]

# As ssh: options, the host, then words that the host's shell takes for one command line.
_AGENT_SCRIPT = """#!/bin/sh
while case "$1" in -*) true;; *) false;; esac; do shift; done
host=$1; shift
exec env -i {variables} {alone} \\
  sh -c 'hostname "$1" && shift && exec sh -c "$*"' sh "$host" "$@"
"""
