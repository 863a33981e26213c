"""The configuration of a development cluster, for releases of Slurm that this machine lacks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.devcluster import TOOL

Cluster = Any  # layout.Cluster: the tool's modules are beside it, in no package


@pytest.fixture
def slurm_config(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(TOOL.parent))
    import slurm_config

    return slurm_config


@pytest.fixture
def make(slurm_config: ModuleType) -> Callable[..., Cluster]:
    from layout import Cluster, Options

    def make(version: tuple[int, int] = (22, 5), **options: Any) -> Cluster:
        return Cluster(
            name="x",
            folder=Path("/d/x"),
            options=Options(**options),
            index=7,
            slurm_version=version,
            controller_host="login",
        )

    return make


def settings(text: str) -> dict[str, str]:
    lines = [line for line in text.splitlines() if not line.startswith(("NodeName", "Partition"))]
    return dict(line.split("=", 1) for line in lines)


@pytest.mark.parametrize(
    ("version", "key", "value"),
    [
        ((22, 5), "SlurmctldParameters", "preempt_send_user_signal"),
        ((23, 2), "PreemptParameters", "send_user_signal"),
        ((25, 11), "PreemptParameters", "send_user_signal"),
    ],
)
def test_each_release_has_its_name_for_the_preemption_signal(
    slurm_config: ModuleType,
    make: Callable[..., Cluster],
    version: tuple[int, int],
    key: str,
    value: str,
) -> None:
    names = {"SlurmctldParameters", "PreemptParameters"}
    without = settings(slurm_config.slurm_conf(make(version)))
    assert not names & without.keys()
    given = settings(slurm_config.slurm_conf(make(version, preempt_signal=True)))
    assert {name: given[name] for name in names & given.keys()} == {key: value}


@pytest.mark.parametrize(
    ("version", "unified", "plugin"),
    [
        ((22, 5), False, "cgroup/v1"),
        ((22, 5), True, "cgroup/v2"),
        ((23, 11), True, "cgroup/v2"),
        ((24, 5), False, "disabled"),
        ((25, 11), True, "disabled"),
    ],
)
def test_cgroups_are_those_of_the_machine_or_none(
    slurm_config: ModuleType, version: tuple[int, int], unified: bool, plugin: str
) -> None:
    given = settings(slurm_config.cgroup_conf(version, unified=unified))
    assert given["CgroupPlugin"] == plugin
    assert ("IgnoreSystemd" in given) == (plugin == "cgroup/v2")


def test_own_settings_take_the_place_of_ours(
    slurm_config: ModuleType, make: Callable[..., Cluster]
) -> None:
    own = ("slurmdtimeout=99", "low.gracetime=1", "high.MaxNodes=2", "DebugFlags=Backfill")
    text = slurm_config.slurm_conf(make(conf=own))
    assert "SlurmdTimeout" not in text
    assert settings(text)["slurmdtimeout"] == "99"
    assert settings(text)["DebugFlags"] == "Backfill"
    low, high = (line for line in text.splitlines() if line.startswith("PartitionName"))
    assert "gracetime=1 " in low
    assert "GraceTime" not in low
    assert "MaxNodes=2 " in high
    assert "MaxNodes" not in low


def test_nodes_have_addresses_of_the_cluster(
    slurm_config: ModuleType, make: Callable[..., Cluster]
) -> None:
    text = slurm_config.slurm_conf(make(nodes=3, cores=5))
    nodes = [line for line in text.splitlines() if line.startswith("NodeName")]
    assert [line.split()[1] for line in nodes] == [f"NodeAddr=10.77.7.{n}" for n in (1, 2, 3)]
    assert all("CPUs=5 " in line for line in nodes)
    assert "Nodes=n[1-3] " in text
    assert slurm_config.hosts_file(make(nodes=1)) == (
        "127.0.0.1 localhost\n10.77.7.1 n1\n10.77.7.254 login\n"
    )
