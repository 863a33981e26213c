"""Ascend's rank table, as the recipe of its model zoo writes it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from clusterseg.errors import ClustersegError
from clusterseg.plan.planner import place
from clusterseg.plan.rank_table import rank_table, rank_table_of
from tests.plan.plans import plan, slurm_plan

# 8p.json of the DeepLabv3 recipe for 8 NPUs, as it stands in its README.
EIGHT = """
{"group_count": "1","group_list":
                    [{"group_name": "worker","device_count": "8","instance_count": "1", "instance_list":
                    [{"devices":
                                   [{"device_id":"0","device_ip":"192.168.100.101"},
                                    {"device_id":"1","device_ip":"192.168.101.101"},
                                    {"device_id":"2","device_ip":"192.168.102.101"},
                                    {"device_id":"3","device_ip":"192.168.103.101"},
                                    {"device_id":"4","device_ip":"192.168.100.100"},
                                    {"device_id":"5","device_ip":"192.168.101.100"},
                                    {"device_id":"6","device_ip":"192.168.102.100"},
                                    {"device_id":"7","device_ip":"192.168.103.100"}],
                                    "pod_name":"npu8p",        "server_id":"127.0.0.1"}]}],"status": "completed"}
"""  # noqa: E501
ADDRESSES = [f"192.168.{net}.{end}" for end in (101, 100) for net in (100, 101, 102, 103)]


def parsed(text: str) -> Any:
    """With the order of keys."""
    return json.loads(text, object_pairs_hook=list)


def test_the_table_of_the_recipe() -> None:
    assert parsed(rank_table({"n1": 8}, {"n1": ADDRESSES})) == parsed(EIGHT)


def test_the_comparison_sees_another_order_of_keys() -> None:
    swapped = EIGHT.replace(
        '"pod_name":"npu8p",        "server_id":"127.0.0.1"',
        '"server_id":"127.0.0.1", "pod_name":"npu8p"',
    )
    assert parsed(swapped) != parsed(EIGHT)
    assert json.loads(swapped) == json.loads(EIGHT)


def test_several_hosts_are_told_apart_and_stand_in_the_order_of_ranks() -> None:
    addresses = {"n2": ["10.0.0.3", "10.0.0.4"], "n1": ["10.0.0.1", "10.0.0.2"]}
    (group,) = json.loads(rank_table({"n1": 2, "n2": 1}, addresses))["group_list"]
    assert (group["device_count"], group["instance_count"]) == ("3", "2")
    first, second = group["instance_list"]
    assert (first["server_id"], second["server_id"]) == ("n1", "n2")
    assert first["pod_name"] != second["pod_name"]
    assert [device["device_ip"] for device in first["devices"]] == ["10.0.0.1", "10.0.0.2"]
    assert second["devices"] == [{"device_id": "0", "device_ip": "10.0.0.3"}]


@pytest.mark.parametrize(
    ("hosts", "addresses", "why"),
    [
        ({"n1": 2}, {"n1": ["10.0.0.1"]}, "n1 has 2 ranks, but the addresses of 1 device"),
        ({"n1": 1}, {"n1": ["10.0.0"]}, "'10.0.0', device 0 of n1, is no IP address"),
        ({"n1": 1}, {"n1": ["10.0.0.1 "]}, "is no IP address"),
        (
            {"n1": 1, "n2": 1},
            {"n1": ["10.0.0.1"], "n2": ["10.0.0.2", "10.0.0.1"]},
            "10.0.0.1 is both device 0 of n1 and device 1 of n2",
        ),
        (
            {"n1": 1},
            {"n1": ["fe80::1", "FE80:0::1"]},
            "FE80:0::1 is both device 0 of n1 and device 1",
        ),
        ({"n1": 1}, {"n1": []}, "n1 has 1 rank, but the addresses of 0 devices"),
        ({"n1": 1, "n2": 1}, {"n1": ["10.0.0.1"]}, "n2 is not among them: n1"),
        ({"n1": 1, "n2": 1}, {"localhost": ["10.0.0.1"]}, "n1 is not among them"),
        ({"10.0.0.1": 1}, {"10.0.0.2": ["10.0.0.1"]}, "10.0.0.1 is not among them"),
        ({"n1.a.org": 1}, {"n1.b.org": ["10.0.0.1"]}, "n1.a.org is not among them"),
    ],
)
def test_addresses_that_can_not_be(
    hosts: dict[str, int], addresses: dict[str, list[str]], why: str
) -> None:
    with pytest.raises(ClustersegError, match=why) as caught:
        rank_table(hosts, addresses)
    assert caught.value.message.startswith("resources.device_addresses: ")


@pytest.mark.parametrize("name", ["n1", "n1.cluster.org", "localhost"])
def test_a_host_is_known_with_its_domain_and_without(name: str) -> None:
    table = rank_table({"n1": 1}, {name: ["10.0.0.1", "10.0.0.2"]})
    assert "10.0.0.1" in table
    assert "10.0.0.2" not in table


ASCEND = """resources:
  ranks: 2
  cpus_per_rank: 1
  accelerator: npu
  device_addresses: {login1: [10.0.0.1, 10.0.0.2], n2: [10.0.0.3, 10.0.0.4]}
"""


def test_a_plan_has_one_for_ranks_of_ascend() -> None:
    table = rank_table_of(plan(ASCEND, "local"))
    assert table is not None
    assert table == rank_table({"login1": 2}, {"login1": ["10.0.0.1", "10.0.0.2"]})


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("npu", "cuda"),
        ("ranks: 2", "ranks: 1"),
        ("resources:", "environment: {variables: {RANK_TABLE_FILE: my.json}}\nresources:"),
    ],
)
def test_others_have_none(good: str, bad: str) -> None:
    planned = plan(ASCEND.replace(good, bad), "local")
    assert rank_table_of(planned) is None
    assert not [text for text in planned.warnings if "rank table" in text]


def test_without_addresses_there_is_none_and_that_is_said() -> None:
    keys = "resources: {ranks: 2, cpus_per_rank: 1, accelerator: npu}\n"
    planned = plan(keys, "local")
    assert rank_table_of(planned) is None
    assert any("there is no rank table" in text for text in planned.warnings)


def test_under_slurm_it_is_made_for_the_hosts_that_slurm_chose() -> None:
    planned = slurm_plan(ASCEND.replace("ranks: 2", "nodes: 2\n  ranks_per_node: 1"))
    table = rank_table_of(place(planned, ["n2", "login1"]))
    assert table is not None
    assert table.index("10.0.0.3") < table.index("10.0.0.1")
    with pytest.raises(ClustersegError, match="n7 is not among them"):
        rank_table_of(place(planned, ["n2", "n7"]))


@pytest.mark.parametrize(
    ("good", "bad", "why"),
    [
        ("10.0.0.2", "10.0.0.2.9", "no IP address"),
        ("10.0.0.3", "10.0.0.1", "both"),
        ("ranks: 2", "ranks: 3", "login1 has 3 ranks, but the addresses of 2 devices"),
        (
            "  ranks: 2\n",
            "  hosts: {login1: 1, n2: 1}\nplacement: {map_by: node}\n",
            "placement.map_by: node",
        ),
    ],
)
def test_a_plan_is_refused_with_what_is_wrong(good: str, bad: str, why: str) -> None:
    keys = ASCEND.replace(good, bad)
    if "placement" in bad:
        rest = keys.partition("map_by: node}\n")[2]
        keys = f"placement: {{map_by: node}}\nresources:\n  hosts: {{login1: 1, n2: 1}}\n{rest}"
    with pytest.raises(ClustersegError, match=why):
        plan(keys, "openmpi4")
