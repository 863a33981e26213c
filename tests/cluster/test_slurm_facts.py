"""What a cluster is like, as its controller tells it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from clusterseg.cluster.slurm.commands import Slurm, SlurmUnreachable
from clusterseg.cluster.slurm.facts import ClusterFacts, NodeFacts, cluster_facts, read_facts
from clusterseg.plan.site import Partition, Site
from clusterseg.submit.site_facts import informed
from tests.devcluster import DevCluster

LOW = "PartitionName=low Default=YES GraceTime=10 MaxNodes=UNLIMITED MaxTime=14-00:00:00"
HIGH = "PartitionName=high Default=NO GraceTime=0 MaxNodes=4 MaxTime=UNLIMITED"
PARTITIONS = f"{LOW} PriorityTier=1 PreemptMode=REQUEUE\n{HIGH} PriorityTier=10 PreemptMode=OFF\n"
CONFIG = {"PreemptType": "preempt/partition_prio", "KillWait": "30 sec", "ClusterName": "x"}


@pytest.mark.parametrize(
    ("parameters", "signals"),
    [
        ({"SlurmctldParameters": "enable_configless,preempt_send_user_signal"}, True),
        ({"PreemptParameters": "send_user_signal,reorder_count=1"}, True),
        ({"PreemptParameters": "(null)"}, False),
        ({}, False),
    ],
)
def test_who_is_warned_of_preemption(parameters: dict[str, str], signals: bool) -> None:
    facts = read_facts({**CONFIG, **parameters}, PARTITIONS)
    low, high = facts.partitions["low"], facts.partitions["high"]
    assert (low.preemptible, high.preemptible) == (True, False)
    assert (facts.warns(low), facts.warns(high)) == (signals, None)
    assert facts.partition(None) == low
    assert (low.max_time, low.max_nodes, high.max_time, high.max_nodes) == (1209600, None, None, 4)
    assert (facts.kill_wait, low.grace) == (30, 10)


def test_without_preemption_and_with_that_of_qos() -> None:
    none = read_facts({**CONFIG, "PreemptType": "preempt/none"}, PARTITIONS)
    assert none.partitions["low"].preemptible is False
    qos = {**CONFIG, "PreemptType": "preempt/qos"}
    by_qos = read_facts(qos, PARTITIONS)
    assert by_qos.partitions["low"].preemptible is None
    assert by_qos.warns(by_qos.partitions["low"]) is False
    told = read_facts({**qos, "PreemptParameters": "send_user_signal"}, PARTITIONS)
    assert told.warns(told.partitions["low"]) is None  # it depends on the grace time of the QOS


@pytest.mark.parametrize(
    ("nodes", "node"),
    [
        # CPUs, sockets, cores of one, threads of a core.
        ("low|64|2|16|2\n", NodeFacts(cores=32, sockets=2, threads_per_core=2)),
        ("low|64|2|16|2\nlow|64|2|16|2\n", NodeFacts(cores=32, sockets=2, threads_per_core=2)),
        ("low|32|2|16|2\n", NodeFacts(cores=32, sockets=2, threads_per_core=1)),  # CPUs= cores
        ("low|4|1|2|2\nhigh|2|1|2|1\n", NodeFacts(cores=2, sockets=1, threads_per_core=2)),
        ("low|64|2|16|2\nlow|32|1|16|2\n", None),  # nodes differ
        ("low|2+|1|2|1\n", None),
        ("low|0|0|0|0\njunk\n|||\n", None),
        ("", None),
    ],
)
def test_what_a_node_of_a_partition_has(nodes: str, node: NodeFacts | None) -> None:
    facts = read_facts(CONFIG, PARTITIONS, nodes)
    assert facts.partitions["low"].node == node


def test_junk_is_borne() -> None:
    assert read_facts({}, "") == ClusterFacts()
    assert read_facts({"MaxArraySize": "1001"}, "").max_array_size == 1001
    facts = read_facts({"KillWait": "soon"}, "PartitionName=x GraceTime=? PriorityTier=²\njunk")
    assert facts.partitions["x"].tier == 1


class Hiding(Slurm):
    """A controller as it is to somebody who is no operator: hidden partitions show with --all."""

    def config(self) -> dict[str, str]:
        return CONFIG

    def run(self, program: str, *arguments: str, **_: object) -> str:  # type: ignore[override]
        return "PartitionName=hidden PriorityTier=1\n" if "--all" in arguments else ""


def test_hidden_partitions_are_seen() -> None:
    facts = cluster_facts({}, slurm=Hiding({}))
    assert facts is not None
    assert list(facts.partitions) == ["hidden"]


class Silent(Slurm):
    """A controller that does not answer, and counts the questions."""

    asked = 0

    def config(self) -> dict[str, str]:
        self.asked += 1
        raise SlurmUnreachable("scontrol", "silent for 4 s")


def test_a_silent_controller_is_left_alone_for_a_minute(tmp_path: Path) -> None:
    environ, now = {"XDG_CACHE_HOME": str(tmp_path)}, [1000.0]
    slurm = Silent(environ)
    for _ in range(3):
        assert cluster_facts(environ, slurm=slurm, clock=lambda: now[0]) is None
    assert slurm.asked == 1
    now[0] += 61
    cluster_facts(environ, slurm=slurm, clock=lambda: now[0])
    assert slurm.asked == 2


def site(**partitions: Partition) -> Site:
    return Site(name="x", title="x", partitions=partitions)


def test_a_cluster_that_was_configured_anew_is_asked_anew(tmp_path: Path) -> None:
    """As one that was taken down and comes up under its old name."""
    conf = tmp_path / "slurm.conf"
    conf.write_text("ClusterName=x\nSlurmctldHost=here\n")
    environ = {"XDG_CACHE_HOME": str(tmp_path), "SLURM_CONF": str(conf)}
    slurm = Silent(environ)
    for asked in (1, 1):
        cluster_facts(environ, slurm=slurm, clock=lambda: 1000.0)
        assert slurm.asked == asked
    os.utime(conf, ns=(1, 1))
    cluster_facts(environ, slurm=slurm, clock=lambda: 1000.0)
    assert slurm.asked == 2


def test_without_a_configuration_nothing_is_asked(tmp_path: Path) -> None:
    environ = {"SLURM_CONF": str(tmp_path / "none"), "PATH": str(tmp_path)}
    assert informed(site(), "low", environ) == site()


@pytest.mark.slow
@pytest.mark.slurm
def test_a_profile_is_completed_and_never_contradicted(
    slurm_cluster: DevCluster,
    slurm_cluster_signal: DevCluster,
    tmp_path: Path,
) -> None:
    def asked(cluster: DevCluster) -> Callable[[Site, str | None], Partition]:
        environ = {**cluster.environ, "XDG_CACHE_HOME": str(tmp_path)}
        return lambda site, name: informed(site, name, environ).partition(name)[1]

    silent, warned = asked(slurm_cluster), asked(slurm_cluster_signal)
    for name in ("low", None):
        assert silent(site(), name) == Partition(preemptible=True, notice=False, cores=2)
        assert warned(site(), name) == Partition(preemptible=True, notice=True, cores=2)
    assert silent(site(), "high").preemptible is False
    assert silent(site(), "nowhere") == Partition()
    assert silent(site(), "low,high") == Partition()
    own = Partition(preemptible=True, notice=True, cores=4)
    assert silent(site(low=own), "low") == own
    own = Partition(preemptible=False, cores=4, sockets=2)
    assert silent(site(low=own), "low") == own
