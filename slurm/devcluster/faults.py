"""Faults made on purpose: daemons killed, stopped and started again, nodes cut off.

Always by the recorded process, never by name; jobs are touched by kill-jobs only.
"""

from __future__ import annotations

import signal

import daemons
import network
from failure import DevclusterError
from layout import Cluster
from processes import Process, alive, end, send, wait_for

# What is not on a node, by the name that a user gives it.
CENTRAL = {"munge": "munged", "accounting": "slurmdbd", "controller": "slurmctld"}
EVERYWHERE = "all"
OF_NODES = ("kill-slurmd", "stop-slurmd", "cont-slurmd", "start-slurmd", "cut", "join", "kill-jobs")
OF_CENTRAL = ("kill", "stop", "cont", "start")
OF_EVERYTHING = ("mend", "kill-jobs")
_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "cont": signal.SIGCONT}


def inject(cluster: Cluster, where: str, what: str) -> str:
    """Does `what` at a node, a central daemon or all; returns a line that says what was done."""
    possible: tuple[str, ...] = OF_CENTRAL if where in CENTRAL else OF_NODES
    if where == EVERYWHERE:
        possible = OF_EVERYTHING
    if what not in possible:
        raise DevclusterError(f"no fault {what!r} for {where}: {', '.join(possible)}", exit_code=2)
    if what == "mend":
        return _mend(cluster)
    if what == "kill-jobs":
        return _kill_jobs(cluster, cluster.node_names if where == EVERYWHERE else [where])
    if what in ("cut", "join"):
        network.set_cable(cluster, where, plugged=what == "join")
        return f"{where}: network {'joined' if what == 'join' else 'cut'}"
    daemon = CENTRAL.get(where, f"slurmd-{where}")
    if daemon not in daemons.expected(cluster):
        raise DevclusterError(f"cluster {cluster.name!r} has no {daemon}")
    action = what.removesuffix("-slurmd")
    if action == "start":
        return _start(cluster, daemon)
    process = daemons.process(cluster, daemon)
    if process is None or not send(process, _SIGNALS[action]):
        raise DevclusterError(f"{daemon} does not run")
    if action == "kill":
        wait_for(lambda: not alive(process), seconds=10, what=f"{daemon} to end")
    return f"{daemon} (pid {process.pid}): {_SIGNALS[action].name} sent"


def _mend(cluster: Cluster) -> str:
    """Joins, continues and starts whatever is cut, stopped or dead; jobs stay as they are."""
    for node in cluster.node_names:
        network.set_cable(cluster, node, plugged=True)
    for name in daemons.expected(cluster):
        process = daemons.process(cluster, name)
        if process:
            send(process, signal.SIGCONT)
    for name in CENTRAL.values():
        if name in daemons.expected(cluster):
            _start(cluster, name)
    for node in cluster.node_names:
        _start(cluster, f"slurmd-{node}")
    return "every daemon runs, every node is joined"


def _kill_jobs(cluster: Cluster, nodes: list[str]) -> str:
    """Kills all that runs on nodes but their slurmd: jobs, their slurmstepds, their orphans."""
    names = [f"{kind}-{node}" for node in nodes for kind in ("node", "slurmd")]
    spared = {process.pid for name in names if (process := daemons.process(cluster, name))}

    def others() -> list[Process]:
        found = (process for node in nodes for process in network.processes_on(cluster, node))
        return [process for process in found if process.pid not in spared]

    count = len(others())
    end(others, patience=0)
    return f"{count} processes killed"


def _start(cluster: Cluster, daemon: str) -> str:
    if alive(daemons.process(cluster, daemon)):
        return f"{daemon} runs already"
    starts = {
        "munged": daemons.start_munged,
        "slurmdbd": daemons.start_slurmdbd,
        "slurmctld": daemons.start_slurmctld,
    }
    if start := starts.get(daemon):
        start(cluster)
    else:
        daemons.start_slurmd(cluster, daemon.removeprefix("slurmd-"))
    return f"{daemon} started"
