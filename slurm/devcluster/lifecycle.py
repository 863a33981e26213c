"""Bringing a cluster up and taking it down; what state it is in.

`down` depends on nothing that `up` could not have done: it looks for each thing by itself, so
that whatever an interrupted `up` left behind goes too.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import replace

import daemons
import network
import slurm_config
from failure import DevclusterError, WaitedInVain
from layout import Cluster, Options, boot_id, folder_of, load
from processes import Process, alive, end, run, wait_for
from requirements import controller_host, node_memory_mb, slurm_version, unified_cgroups

# What a process of a cluster may take to end by itself, in seconds.
PATIENCE = 1.0


def state(name: str) -> str:
    """`none`, `up` (all runs that should), or `broken` (half started, half dead, or of another
    boot): what `up` starts anew."""
    cluster = load(name)
    if cluster is None:
        return "broken" if folder_of(name).exists() or index_of(name) is not None else "none"
    if not cluster.complete or cluster.boot_id != boot_id():
        return "broken"
    dead = [
        daemon
        for daemon in daemons.expected(cluster)
        if not alive(daemons.process(cluster, daemon))
    ]
    return "broken" if dead else "up"


def build(name: str, options: Options) -> Cluster:
    """Starts a cluster where there is none; raises DevclusterError with the reason's log."""
    folder = folder_of(name)
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    cluster = Cluster(
        name=name,
        folder=folder,
        options=options,
        boot_id=boot_id(),
        memory_mb=node_memory_mb(options.nodes),
        slurm_version=slurm_version(),
        controller_host=controller_host(),
    )
    cluster.make_folders()
    cluster.save()
    cluster = replace(cluster, index=network.take_index(cluster.mark))
    cluster.save()
    _configure(cluster)
    network.make(cluster)
    daemons.start_munged(cluster)
    if options.accounting:
        _start_accounting(cluster)
    daemons.start_slurmctld(cluster)
    for node in cluster.node_names:
        daemons.start_node(cluster, node)
        daemons.start_slurmd(cluster, node)
    _await_nodes(cluster)
    cluster = replace(cluster, complete=True)
    cluster.save()
    return cluster


def notes(cluster: Cluster) -> list[str]:
    """What this machine keeps the cluster from, with the remedy."""
    if cluster.options.nodes == 1:
        return []
    there = (cluster.address("n2"), cluster.ports["slurmd"])
    code = f"import socket; socket.create_connection({there!r}, timeout=3)"
    try:
        run(*daemons.on_node(cluster, "n1", [sys.executable, "-c", code], cwd="/"), timeout=20)
    except DevclusterError:
        bridge = cluster.bridge
        return [
            "the nodes can't reach each other; a firewall (Docker's?) may drop what the bridge "
            f"forwards: iptables -I FORWARD -i {bridge} -o {bridge} -j ACCEPT"
        ]
    return []


def take_down(name: str) -> bool:
    """Ends and removes all of a cluster; False if there was nothing of it."""
    cluster = load(name)
    folder = folder_of(name)
    index = index_of(name)
    if index is None and not folder.exists():
        return False
    same_boot = cluster is None or cluster.boot_id == boot_id()
    bare = cluster or Cluster(name=name, folder=folder, options=Options())

    def living() -> list[Process]:
        # After a restart of the machine a recorded pid may be anybody's.
        found = daemons.recorded_processes(bare) if same_boot else []
        if index is not None:
            known = {process.pid for process in found}
            found += [each for each in network.processes(index) if each.pid not in known]
        return found

    end(living, patience=PATIENCE)
    if index is not None:
        network.remove(index, bare.mark)
    if folder.exists():
        shutil.rmtree(folder)
    return True


def index_of(name: str) -> int | None:
    """The index of the network that there is of a cluster: by its bridge, else by its record."""
    mark = Cluster(name=name, folder=folder_of(name), options=Options()).mark
    index = network.own_index(mark)
    if index is None:
        cluster = load(name)
        if cluster and cluster.index is not None and network.leftovers(cluster.index):
            return cluster.index
    return index


def _configure(cluster: Cluster) -> None:
    unified = unified_cgroups()
    for name, text in (
        ("slurm.conf", slurm_config.slurm_conf(cluster)),
        ("cgroup.conf", slurm_config.cgroup_conf(cluster.slurm_version, unified=unified)),
        ("mpi.conf", slurm_config.mpi_conf(cluster)),
        ("hosts", slurm_config.hosts_file(cluster)),
    ):
        (cluster.etc / name).write_text(text)
        (cluster.etc / name).chmod(0o644)


def _start_accounting(cluster: Cluster) -> None:
    """MariaDB with a database of its own, slurmdbd, and the cluster with an account in it."""
    environ = daemons.environment(cluster)
    cluster.database.mkdir(mode=0o700)
    (cluster.etc / "my.cnf").write_text(slurm_config.mariadb_conf(cluster))
    conf = cluster.etc / "slurmdbd.conf"
    conf.touch(0o600)
    conf.write_text(slurm_config.slurmdbd_conf(cluster))
    run(
        "mariadb-install-db",
        f"--defaults-file={cluster.etc / 'my.cnf'}",
        "--auth-root-authentication-method=normal",
        "--skip-test-db",
        environ=environ,
    )
    daemons.start_mariadbd(cluster)
    daemons.start_slurmdbd(cluster)

    def answers() -> bool:
        try:
            run("sacctmgr", "-n", "show", "cluster", environ=environ, timeout=10)
        except DevclusterError:
            return False
        return True

    daemons.await_(cluster, "slurmdbd", answers, interval=0.1)
    for entity in (
        ["cluster", f"name={cluster.slurm_name}"],
        ["account", "name=dev", "description=dev", "organization=dev"],
        ["user", f"name={','.join(_users())}", "account=dev"],
    ):
        run("sacctmgr", "-i", "add", *entity, environ=environ)


def _users() -> list[str]:
    return sorted({"root", os.environ.get("SUDO_USER", "root")})


def _await_nodes(cluster: Cluster) -> None:
    """Until Slurm calls every node idle; raises with the log of a daemon that died."""
    environ = daemons.environment(cluster)

    def idle() -> bool:
        for name in daemons.expected(cluster):
            if not alive(daemons.process(cluster, name)):
                raise DevclusterError(f"{name} ended\n{daemons.last_words(cluster, name)}")
        try:
            said = run("sinfo", "-h", "-N", "-p", "low", "-o", "%t", environ=environ, timeout=10)
        except DevclusterError:
            return False
        return said.split() == ["idle"] * cluster.options.nodes

    try:
        wait_for(idle, seconds=40, what="all nodes to be idle", interval=0.1)
    except WaitedInVain as error:
        words = [daemons.last_words(cluster, name) for name in ("slurmctld", "slurmd-n1")]
        raise DevclusterError(
            "\n".join([str(error), *words]),
            help=f"does a firewall of this machine drop what comes from {cluster.bridge}?",
        ) from None
