"""The daemons of a cluster: how each is started, where it is recorded, what it says when it dies.

munged, slurmctld, slurmdbd and mariadbd run on the machine itself. A node is a process that
holds its network, host name and mounts; its slurmd and `devcluster exec` enter there.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from failure import DevclusterError, WaitedInVain
from layout import Cluster
from processes import Process, alive, recorded, spawn, wait_for
from requirements import SYSTEM_PATH

# $1: host name; $2 is mounted on $3 and $4 on /etc/hosts; $5 is made when the node is ready.
# Not `ip netns exec`: it mounts /sys anew, and slurmd dies without the cgroup tree below.
_HOLD = (
    'hostname "$1"; mount --bind "$2" "$3"; mount --bind "$4" /etc/hosts; : > "$5"; '
    "exec sleep infinity"
)


def environment(cluster: Cluster) -> dict[str, str]:
    """What daemons and our own Slurm commands get: nothing of the caller's."""
    return {"PATH": SYSTEM_PATH, "LANG": "C.UTF-8", "SLURM_CONF": str(cluster.slurm_conf)}


def record(cluster: Cluster, name: str) -> Path:
    return cluster.run / f"{name}.process"


def process(cluster: Cluster, name: str) -> Process | None:
    """The daemon `name` as it was last started, whether or not it still runs."""
    return recorded(record(cluster, name))


def recorded_processes(cluster: Cluster) -> list[Process]:
    found = (recorded(path) for path in cluster.run.glob("*.process"))
    return [process for process in found if process]


def expected(cluster: Cluster) -> list[str]:
    """Names of all that runs when the cluster is up."""
    names = ["munged", "slurmctld"]
    if cluster.options.accounting:
        names += ["mariadbd", "slurmdbd"]
    for node in cluster.node_names:
        names += [f"node-{node}", f"slurmd-{node}"]
    return names


def start_munged(cluster: Cluster) -> None:
    folder = cluster.munge_socket.parent
    key = folder / "key"
    if not key.exists():
        key.touch(0o400)
        key.write_bytes(os.urandom(1024))
    # One that was killed leaves its socket behind.
    cluster.munge_socket.unlink(missing_ok=True)
    options = {
        "socket": cluster.munge_socket,
        "key-file": key,
        "seed-file": folder / "seed",
        "pid-file": cluster.run / "munged.pid",
    }
    argv = ["munged", "--foreground", "--force"]
    _start(cluster, "munged", [*argv, *(f"--{name}={value}" for name, value in options.items())])
    await_(cluster, "munged", cluster.munge_socket.exists)


def start_mariadbd(cluster: Cluster) -> None:
    socket = cluster.database / "socket"
    _start(cluster, "mariadbd", ["mariadbd", f"--defaults-file={cluster.etc / 'my.cnf'}"])
    await_(cluster, "mariadbd", socket.exists)


def start_slurmdbd(cluster: Cluster) -> None:
    socket = cluster.database / "socket"
    _start(cluster, "slurmdbd", ["slurmdbd", "-D"], MYSQL_UNIX_PORT=str(socket))


def start_slurmctld(cluster: Cluster) -> None:
    _start(cluster, "slurmctld", ["slurmctld", "-D", "-f", str(cluster.slurm_conf)])


def start_node(cluster: Cluster, node: str) -> None:
    """Starts the process that is the node; `slave`: what the machine mounts later is seen."""
    ready = cluster.run / f"node-{node}.ready"
    ready.unlink(missing_ok=True)
    entering = ["nsenter", f"--net=/run/netns/{cluster.namespace(node)}"]
    entering += ["unshare", "--uts", "--mount", "--propagation", "slave"]
    folders = (cluster.node_folder(node), cluster.node_tmp, cluster.etc / "hosts", ready)
    argv = [*entering, "sh", "-ec", _HOLD, "node", node, *(str(path) for path in folders)]
    _start(cluster, f"node-{node}", argv)
    await_(cluster, f"node-{node}", ready.exists)


def start_slurmd(cluster: Cluster, node: str) -> None:
    argv = ["slurmd", "-D", "-N", node, "-f", str(cluster.slurm_conf)]
    _start(cluster, f"slurmd-{node}", on_node(cluster, node, argv, cwd="/"))


def on_node(cluster: Cluster, node: str, argv: Sequence[str], *, cwd: str) -> list[str]:
    """argv that runs `argv` on the node: in its network, with its host name and mounts."""
    holder = process(cluster, f"node-{node}")
    if holder is None or not alive(holder):
        raise DevclusterError(
            f"node {node} of cluster {cluster.name!r} does not run",
            help="devcluster up starts a cluster that is half dead anew",
        )
    inside = ["--net", "--uts", "--mount", "env", f"--chdir={cwd}"]
    return ["nsenter", "--target", str(holder.pid), *inside, *argv]


def await_(
    cluster: Cluster, name: str, ready: Callable[[], bool], *, interval: float = 0.02
) -> None:
    """Waits until `ready()`; raises with the log's end if the daemon dies or takes too long."""

    def done() -> bool:
        if not alive(process(cluster, name)):
            raise DevclusterError(f"{name} ended\n{last_words(cluster, name)}")
        return ready()

    try:
        wait_for(done, seconds=30, what=name, interval=interval)
    except WaitedInVain as error:
        raise DevclusterError(f"{error}\n{last_words(cluster, name)}") from None


def last_words(cluster: Cluster, name: str, lines: int = 12) -> str:
    """The end of what a daemon wrote: its own log, else what it said while starting."""
    for suffix in (".log", ".out"):
        path = cluster.log / f"{name}{suffix}"
        try:
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - 20000))
                said = file.read().decode(errors="replace").splitlines()[-lines:]
        except OSError:
            continue
        if said:
            return "\n".join([f"The end of {path}:", *(f"  {line}" for line in said)])
    return f"It wrote nothing to {cluster.log}"


def _start(
    cluster: Cluster, name: str, argv: list[str], **variables: str
) -> subprocess.Popen[bytes]:
    environ = {**environment(cluster), **variables}
    return spawn(record(cluster, name), cluster.log / f"{name}.out", argv, environ)
