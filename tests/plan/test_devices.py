"""Accelerators dealt out by local rank: each its own, and never over what others have set."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterseg.errors import ClustersegError
from clusterseg.plan.devices import (
    DEVICES,
    device_variables,
    device_words,
    listed_devices,
    own_devices,
    seen_devices,
)
from tests.plan.plans import plan, site, slurm_plan

UUIDS = "GPU-8f6e1c2a-1b2c,MIG-3eb87630-93d5-b2b6-b8ff-9b359caf4ee2"


@pytest.mark.parametrize(
    ("value", "devices"),
    [
        ("4,5,6,7", ["4", "5", "6", "7"]),
        (" 0 , 2 ", ["0", "2"]),
        (UUIDS, UUIDS.split(",")),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("2,-1,3", ["2"]),
        ("2,,3", ["2"]),
    ],
)
def test_what_a_variable_names(value: str, devices: list[str]) -> None:
    assert listed_devices(value) == devices


def test_a_device_that_is_named_twice_is_refused() -> None:
    with pytest.raises(ClustersegError, match="name 3 twice"):
        listed_devices("1,3,3")


@pytest.mark.parametrize(
    ("kind", "environ", "files", "devices"),
    [
        ("cuda", {}, 3, ["0", "1", "2"]),
        ("cuda", {"CUDA_VISIBLE_DEVICES": "6,7"}, 8, ["6", "7"]),
        ("cuda", {"CUDA_VISIBLE_DEVICES": ""}, 8, []),
        ("hpu", {"HABANA_VISIBLE_MODULES": "2,3"}, 8, ["2", "3"]),
        ("hpu", {"CUDA_VISIBLE_DEVICES": "6"}, 2, ["0", "1"]),
        # Ascend counts those that are visible.
        ("npu", {"ASCEND_RT_VISIBLE_DEVICES": "4,5"}, 8, ["0", "1"]),
    ],
)
def test_what_a_host_shows(
    kind: str, environ: dict[str, str], files: int, devices: list[str]
) -> None:
    assert seen_devices(kind, environ, files)[0] == devices


@given(st.integers(1, 16), st.integers(1, 4))
def test_every_rank_of_a_host_has_its_own(ranks: int, count: int) -> None:
    visible = [str(number) for number in range(ranks * count)]
    dealt = [own_devices(visible, count, rank, kind="cuda", where="") for rank in range(ranks)]
    assert [device for own in dealt for device in own] == visible
    with pytest.raises(ClustersegError):
        own_devices(visible, count, ranks, kind="cuda", where="")


def test_too_few_are_an_error_that_says_how_many_there_are() -> None:
    with pytest.raises(ClustersegError) as caught:
        own_devices(["4", "5"], 1, 2, kind="cuda", where="CUDA_VISIBLE_DEVICES=4,5")
    assert "local rank 2 is to have accelerator 2 of kind cuda" in caught.value.message
    assert "there are 2 (CUDA_VISIBLE_DEVICES=4,5)" in caught.value.message


def test_what_ranks_are_told() -> None:
    assert device_variables("cuda", ["4", "5"], 3, 8, None) == {"CUDA_VISIBLE_DEVICES": "4,5"}
    assert device_variables("hpu", ["7"], 3, 8, None) == {"HABANA_VISIBLE_MODULES": "7"}
    assert device_variables("npu", ["1"], 3, 8, "t.json") == {
        "DEVICE_ID": "1",
        "ASCEND_DEVICE_ID": "1",
        "RANK_ID": "3",
        "RANK_SIZE": "8",
        "RANK_TABLE_FILE": "t.json",
    }
    assert "RANK_TABLE_FILE" not in device_variables("npu", ["1"], 3, 8, None)


@pytest.mark.parametrize(
    ("kind", "count", "own", "given_", "words"),
    [
        ("none", 1, (), False, {}),
        ("cuda", 0, (), False, {}),
        ("cuda", 2, (), False, {DEVICES: "cuda:2"}),
        ("cuda", 2, (), True, {DEVICES: "cuda"}),
        ("cuda", 2, ("CUDA_VISIBLE_DEVICES",), False, {DEVICES: "cuda"}),
        ("cuda", 2, ("HABANA_VISIBLE_MODULES",), False, {DEVICES: "cuda:2"}),
        ("npu", 1, ("DEVICE_ID",), False, {DEVICES: "npu"}),
        ("npu", 1, ("RANK_TABLE_FILE",), False, {DEVICES: "npu:1"}),
    ],
)
def test_who_deals_them_out(
    kind: str, count: int, own: tuple[str, ...], given_: bool, words: dict[str, str]
) -> None:
    assert device_words(kind, count, own, given=given_) == words


def test_a_number_without_a_kind_is_told() -> None:
    def told(keys: str) -> list[str]:
        text = f"resources: {{ranks: 1, {keys}}}\n"
        return [line for line in plan(text).warnings if "accelerators_per_rank" in line]

    (line,) = told("accelerators_per_rank: 2")
    assert line.startswith("resources.accelerators_per_rank: 2 says nothing without")
    assert not told("accelerators_per_rank: 0")
    assert not told("accelerators_per_rank: 2, accelerator: cuda")


def test_a_process_of_ascend_has_one_device() -> None:
    with pytest.raises(ClustersegError, match="a process of Ascend has one NPU"):
        device_words("npu", 2, (), given=False)


GPUS = "resources: {nodes: 1, ranks_per_node: 2, cpus_per_rank: 1, accelerator: cuda}\n"


@pytest.mark.parametrize(
    ("style", "launcher", "word"),
    [
        ("gpus-per-task", "srun", "cuda"),  # Slurm gives each task its own
        ("gpus-per-task", "openmpi5", "cuda:1"),  # of which mpirun knows nothing
        ("gpus-per-node", "srun", "cuda:1"),
        ("gres", "srun", "cuda:1"),
    ],
)
def test_slurm_has_the_first_word_where_it_deals_out(style: str, launcher: str, word: str) -> None:
    at = site(f"title: T\npartitions: {{p: {{cores: 8}}}}\ngpus: {style}\n")
    assert slurm_plan(GPUS, launcher, at=at).environment[DEVICES] == word


def test_ranks_on_all_hosts_are_told() -> None:
    planned: Any = plan(GPUS)
    assert planned.environment[DEVICES] == "cuda:1"
    assert f"-x {DEVICES}" in " ".join(planned.argv)
