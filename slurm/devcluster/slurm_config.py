"""The configuration of a cluster as text. Pure: values in, file contents out.

Written for Slurm 22.05 (Debian 12) and later. Times are in seconds unless said.
"""

from __future__ import annotations

import re

from failure import DevclusterError
from layout import Cluster

PARTITIONS = {
    "low": {
        "Default": "YES",
        "PriorityTier": "1",
        "PreemptMode": "REQUEUE",
        "GraceTime": "10",
        "MaxTime": "14-00:00:00",
        "DefaultTime": "01:00:00",
    },
    "high": {
        "PriorityTier": "10",
        "PreemptMode": "OFF",
        "MaxTime": "7-00:00:00",
        "DefaultTime": "01:00:00",
    },
}

# What holds the cluster together, and apart from others.
_FIXED = re.compile(
    r"(?i)(ClusterName|Slurm(ctld|d)(Host|Port.*|PidFile|Addr)|SlurmdSpoolDir|Slurmd?User"
    r"|ControlMachine|StateSaveLocation|Auth.*|Cred.*|AccountingStorage(Host|Port|Type|User|Pass)"
    r"|TmpFS|NodeName|PartitionName|Include|DownNodes|FrontendName|NodeSet)"
)
_SETTING = re.compile(r"((?:low|high)\.)?([A-Za-z]\w*)=([^\n\r#]*)")


def slurm_conf(cluster: Cluster) -> str:
    """slurm.conf, the user's own settings in place of ours."""
    own, own_of_partition = _own(cluster.options.conf)
    settings = _merged(_settings(cluster), own)
    lines = [f"{key}={value}" for key, value in settings.items()]
    lines += [_node(cluster, node) for node in cluster.node_names]
    for name, values in PARTITIONS.items():
        merged = _merged(values, own_of_partition.get(name, {}))
        said = " ".join(f"{key}={value}" for key, value in merged.items())
        lines.append(f"PartitionName={name} Nodes={_all_nodes(cluster)} {said} State=UP")
    return "\n".join(lines) + "\n"


def check_settings(conf: tuple[str, ...]) -> None:
    """Refuses what is no setting, or one that devcluster needs; slurmctld judges the rest."""
    _own(conf)


def _merged(values: dict[str, str], own: dict[str, str]) -> dict[str, str]:
    """`own` in place of `values`; Slurm does not tell small from capital letters."""
    replaced = {key.lower() for key in own}
    return {**{k: v for k, v in values.items() if k.lower() not in replaced}, **own}


def _own(conf: tuple[str, ...]) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    everywhere: dict[str, str] = {}
    partitions: dict[str, dict[str, str]] = {}
    for setting in conf:
        match = _SETTING.fullmatch(setting)
        if not match:
            raise DevclusterError(
                f"--conf {setting!r} is not of the form Key=Value",
                help="for example --conf SlurmdTimeout=60 or --conf low.GraceTime=30",
                exit_code=2,
            )
        partition, key, value = match.groups()
        if not partition and _FIXED.fullmatch(key):
            raise DevclusterError(f"--conf {key}: devcluster sets this itself", exit_code=2)
        if partition:
            partitions.setdefault(partition[:-1], {})[key] = value
        else:
            everywhere[key] = value
    return everywhere, partitions


def _settings(cluster: Cluster) -> dict[str, str]:
    folder, ports, version = cluster.folder, cluster.ports, cluster.slurm_version
    settings = {
        "ClusterName": cluster.slurm_name,
        "SlurmctldHost": f"{cluster.controller_host}({cluster.controller_address})",
        "SlurmUser": "root",
        "SlurmdUser": "root",
        "SlurmctldPort": str(ports["slurmctld"]),
        "SlurmdPort": str(ports["slurmd"]),
        "AuthType": "auth/munge",
        "CredType": "cred/munge",
        # A preempted job may not start again before its credential has expired (121 s by
        # default); a short life makes requeues quick.
        "AuthInfo": f"socket={cluster.munge_socket},cred_expire=5",
        "StateSaveLocation": str(folder / "state"),
        "SlurmdSpoolDir": str(folder / "spool-%n"),
        "SlurmctldPidFile": str(cluster.run / "slurmctld.pid"),
        "SlurmdPidFile": str(cluster.run / "slurmd-%n.pid"),
        "SlurmctldLogFile": str(cluster.log / "slurmctld.log"),
        "SlurmdLogFile": str(cluster.log / "slurmd-%n.log"),
        # A private folder a node on one path: PMIx servers of two nodes that share a file
        # system would fight for the same names.
        "TmpFS": str(cluster.node_tmp),
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/affinity" if cluster.can_bind else "task/none",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_Core",
        # Each node may claim cores of the machine, though together they claim more than it has.
        "SlurmdParameters": "config_overrides",
        "MpiDefault": "none",
        "ReturnToService": "2",
        # A lost node is noticed quickly, but not one that is only slow because nodes share cores.
        "SlurmdTimeout": "15",
        "SlurmctldTimeout": "30",
        "InactiveLimit": "0",
        # A preempted job has its GraceTime and then this long.
        "KillWait": "5",
        "MinJobAge": "300",
        "WaitTime": "0",
        "SchedulerType": "sched/backfill",
        # By default a job waits for up to 3 s though nodes are free, and for 30 s after another.
        "SchedulerParameters": "bf_interval=1,sched_interval=1,sched_min_interval=0,"
        "batch_sched_delay=0",
        "PreemptType": "preempt/partition_prio",
        "PreemptMode": "REQUEUE",
        "JobRequeue": "1",
        "EnforcePartLimits": "ALL",
        "MailProg": "/bin/true",
    }
    if cluster.options.preempt_signal:
        # The name changed with 23.02; each release refuses the other's.
        if version >= (23, 2):
            settings["PreemptParameters"] = "send_user_signal"
        else:
            settings["SlurmctldParameters"] = "preempt_send_user_signal"
    if cluster.options.accounting:
        settings["AccountingStorageType"] = "accounting_storage/slurmdbd"
        settings["AccountingStorageHost"] = cluster.controller_address
        settings["AccountingStoragePort"] = str(ports["slurmdbd"])
        # Despite its name: the munge socket for what is said to slurmdbd.
        settings["AccountingStoragePass"] = str(cluster.munge_socket)
        settings["AccountingStorageEnforce"] = "associations"
        settings["JobAcctGatherType"] = "jobacct_gather/linux"
        settings["JobAcctGatherFrequency"] = "5"
    # Without: both types default to none, a word that later releases refuse.
    return settings


def _node(cluster: Cluster, node: str) -> str:
    cores = cluster.options.cores
    return (
        f"NodeName={node} NodeAddr={cluster.address(node)} CPUs={cores} Sockets=1 "
        f"CoresPerSocket={cores} ThreadsPerCore=1 RealMemory={cluster.memory_mb} State=UNKNOWN"
    )


def _all_nodes(cluster: Cluster) -> str:
    return f"n[1-{cluster.options.nodes}]" if cluster.options.nodes > 1 else "n1"


def cgroup_conf(version: tuple[int, ...], *, unified: bool) -> str:
    """cgroup.conf; slurmd reads it although no plug-in here uses cgroups.

    unified: the machine has cgroup v2 only. `disabled` came with 24.05; before, slurmd with v2
    wants systemd over D-Bus unless told otherwise.
    """
    if version >= (24, 5):
        return "CgroupPlugin=disabled\n"
    if unified:
        return "CgroupPlugin=cgroup/v2\nIgnoreSystemd=yes\n"
    return "CgroupPlugin=cgroup/v1\n"


def mpi_conf(cluster: Cluster) -> str:
    """mpi.conf: PMIx keeps its sockets in the node's own folder."""
    return f"PMIxCliTmpDirBase={cluster.node_tmp}\n"


def slurmdbd_conf(cluster: Cluster) -> str:
    """slurmdbd.conf (Slurm demands mode 0600)."""
    settings = {
        "AuthType": "auth/munge",
        "AuthInfo": f"socket={cluster.munge_socket}",
        "DbdHost": cluster.controller_host,
        "DbdAddr": cluster.controller_address,
        "DbdPort": str(cluster.ports["slurmdbd"]),
        "SlurmUser": "root",
        "PidFile": str(cluster.run / "slurmdbd.pid"),
        "LogFile": str(cluster.log / "slurmdbd.log"),
        "StorageType": "accounting_storage/mysql",
        "StorageHost": "localhost",
        "StorageUser": "root",
        "StorageLoc": "slurm",
    }
    return "".join(f"{key}={value}\n" for key, value in settings.items())


def mariadb_conf(cluster: Cluster) -> str:
    """my.cnf: small, on a socket only, and quick rather than durable."""
    folder = cluster.database
    settings = {
        "datadir": str(folder / "data"),
        "socket": str(folder / "socket"),
        "pid-file": str(folder / "pid"),
        "user": "root",
        "innodb-buffer-pool-size": "64M",
        "innodb-log-file-size": "16M",
        "innodb-flush-log-at-trx-commit": "0",
        "innodb-flush-method": "nosync",
        "innodb-lock-wait-timeout": "900",  # slurmdbd complains below 900
        "max-allowed-packet": "16M",
        "key-buffer-size": "1M",
        "aria-pagecache-buffer-size": "8M",
        "performance-schema": "OFF",
    }
    lines = [f"{key} = {value}" for key, value in settings.items()]
    return "\n".join(["[mariadbd]", "skip-networking", "skip-name-resolve", *lines]) + "\n"


def hosts_file(cluster: Cluster) -> str:
    """/etc/hosts of every node."""
    lines = ["127.0.0.1 localhost"]
    lines += [f"{cluster.address(node)} {node}" for node in cluster.node_names]
    lines.append(f"{cluster.controller_address} {cluster.controller_host}")
    return "\n".join(lines) + "\n"
