"""What a cluster is like, by its controller: how it preempts, whom it warns, what its nodes have.

Three questions (`scontrol show config`, `scontrol show partition`, `sinfo`), whose answers are good
for a day.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from clusterseg.cluster.slurm.answers import time_limit
from clusterseg.cluster.slurm.cache import CacheFile, cache_folder, cluster_mark
from clusterseg.cluster.slurm.commands import Slurm, SlurmError, SlurmMissing
from clusterseg.cluster.slurm.configuration import configuration_file

FRESH = 86400.0  # seconds that the facts are good for
PAUSE = 60.0  # seconds after a failure before the controller is asked again
PATIENCE = 4.0  # seconds for an answer: it is only about warnings

_PARTITION = re.compile(r"PartitionName=(\S+)\s(.*)")
_FIELD = re.compile(r"(\w+)=(\S*)")
# A line for each kind of node of a partition: its CPUs, sockets, cores of one, threads of a core.
_NODES = ("sinfo", "--all", "--noheader", "--exact", "--format=%R|%c|%X|%Y|%Z")
_NODE = re.compile(r"(\S+)\|(\d{1,6})\|(\d{1,6})\|(\d{1,6})\|(\d{1,6})\s*", re.ASCII)


class NodeFacts(Struct, frozen=True, kw_only=True):
    """A node: its physical cores and sockets, and how many CPUs Slurm counts on one core."""

    cores: int
    sockets: int
    threads_per_core: int


class PartitionFacts(Struct, frozen=True, kw_only=True):
    """A partition. `max_time` and `grace` in seconds, None: without limit, or not known.

    `preemptible`: jobs of another partition may take its nodes; None where that depends on more
    than partitions (preempt/qos). `node`: what each of its nodes is like; None where they differ.
    """

    name: str
    is_default: bool = False
    max_time: int | None = None
    max_nodes: int | None = None
    grace: int = 0
    tier: int = 1
    preemptible: bool | None = None
    node: NodeFacts | None = None


class ClusterFacts(Struct, frozen=True, kw_only=True):
    """A cluster. `signals_script`: a preempted job's batch script gets the signal of its --signal
    option when its grace time begins. `kill_wait` in seconds. `max_array_size`: one more than the
    highest number that a task of an array may have."""

    cluster: str = ""
    version: str = ""
    accounting: bool = False
    signals_script: bool = False
    kill_wait: int | None = None
    max_array_size: int | None = None
    partitions: dict[str, PartitionFacts] = {}

    def partition(self, name: str | None) -> PartitionFacts | None:
        """The partition that a job gets which asks for `name` (None: the default one)."""
        if name is not None:
            return self.partitions.get(name)
        return next((one for one in self.partitions.values() if one.is_default), None)

    def warns(self, partition: PartitionFacts) -> bool | None:
        """Whether a job that is preempted there is told in its batch script; None: not known."""
        if partition.preemptible is False:
            return None
        if partition.preemptible is None and self.signals_script:
            return None  # the grace time is that of the quality of service
        return self.signals_script and partition.grace > 0


class _Kept(Struct, frozen=True):
    """`configured`: the time of the slurm.conf that held then; another one, another cluster."""

    when: float
    facts: ClusterFacts | None
    configured: int = 0


def cluster_facts(
    environ: Mapping[str, str] = os.environ,
    *,
    slurm: Slurm | None = None,
    clock: Callable[[], float] = time.time,
) -> ClusterFacts | None:
    """The facts of the cluster that this environment names; None if it does not answer."""
    folder = cache_folder(environ)
    file = CacheFile(folder / f"{cluster_mark(environ)}-facts.json" if folder else None)
    kept, now = file.load(_Kept), clock()
    configured = _configured(environ)
    if kept is not None and kept.configured == configured:
        good_for = PAUSE if kept.facts is None else FRESH
        if 0 <= now - kept.when < good_for:
            return kept.facts
    slurm = slurm or Slurm(environ, patience=PATIENCE)
    try:
        # Without --all hidden partitions are left out, but for root and operators.
        show = ("scontrol", "--all", "-o", "show", "partition")
        facts = read_facts(slurm.config(), slurm.run(*show), _nodes(slurm))
    except SlurmError:
        facts = None
    file.save(_Kept(now, facts, configured))
    return facts


def _nodes(slurm: Slurm) -> str:
    try:
        return slurm.run(*_NODES)
    except SlurmMissing:  # without it the rest is still worth knowing
        return ""


def _configured(environ: Mapping[str, str]) -> int:
    """When the slurm.conf was written, in nanoseconds; 0 if none can be seen."""
    file = configuration_file(environ)
    try:
        return file.stat().st_mtime_ns if file is not None else 0
    except OSError:
        return 0


def read_facts(config: Mapping[str, str], partitions: str, nodes: str = "") -> ClusterFacts:
    """The facts in what scontrol prints, and sinfo of the nodes. Pure."""
    # 22.05 has it among the controller's parameters, later releases among preemption's.
    parameters = {
        word.strip().removeprefix("preempt_")
        for name in ("SlurmctldParameters", "PreemptParameters")
        for word in config.get(name, "").split(",")
    }
    how = config.get("PreemptType", "")
    found = [_partition(match[1], match[2]) for match in _PARTITION.finditer(partitions)]
    kinds = _kinds(nodes)
    highest = max((one.tier for one, _ in found), default=0)
    return ClusterFacts(
        cluster=config.get("ClusterName", ""),
        version=config.get("SLURM_VERSION", ""),
        accounting=config.get("AccountingStorageType", "").endswith("slurmdbd"),
        signals_script="send_user_signal" in parameters,
        kill_wait=_number(config.get("KillWait", "")),
        max_array_size=_number(config.get("MaxArraySize", "")),
        partitions={
            one.name: replace(
                one,
                preemptible=_is_preemptible(how, mode, one.tier < highest),
                node=kinds.get(one.name),
            )
            for one, mode in found
        },
    )


def _kinds(nodes: str) -> dict[str, NodeFacts]:
    """What the nodes of each partition are like that has nodes of one kind."""
    kinds: dict[str, set[NodeFacts]] = {}
    for line in nodes.splitlines():
        found = _NODE.fullmatch(line.strip())
        if found is None:
            continue
        cpus, sockets, of_socket, threads = map(int, found.groups()[1:])
        cores = sockets * of_socket
        if not cores:
            continue
        # A node whose CPUs= are its cores is shared out by cores, whatever threads these have.
        counted = max(1, min(threads, cpus // cores))
        kind = NodeFacts(cores=min(cores, cpus), sockets=sockets, threads_per_core=counted)
        kinds.setdefault(found[1], set()).add(kind)
    return {name: next(iter(found)) for name, found in kinds.items() if len(found) == 1}


def _partition(name: str, text: str) -> tuple[PartitionFacts, str]:
    """A partition, and its PreemptMode."""
    fields = dict(_FIELD.findall(text))
    tier, nodes = fields.get("PriorityTier", ""), fields.get("MaxNodes", "")
    facts = PartitionFacts(
        name=name,
        is_default=fields.get("Default") == "YES",
        max_time=time_limit(fields.get("MaxTime", "")),
        max_nodes=int(nodes) if nodes.isdecimal() else None,
        grace=_number(fields.get("GraceTime", "")) or 0,
        tier=int(tier) if tier.isdecimal() else 1,
    )
    return facts, fields.get("PreemptMode", "")


def _is_preemptible(how: str, mode: str, is_lower: bool) -> bool | None:
    if mode == "OFF" or how in ("", "preempt/none", "(null)"):
        return False
    return is_lower if how == "preempt/partition_prio" else None


def _number(text: str) -> int | None:
    """Of `10` or `10 sec`."""
    found = re.match(r"(\d{1,9})\b", text.strip(), re.ASCII)
    return int(found[1]) if found else None
