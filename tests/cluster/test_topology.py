"""Cores, sockets and threads as the kernel's files tell them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clusterseg.cluster.topology import own_cpuset, this_host
from clusterseg.runs.affinity import Standing, standing


def machine(folder: Path, cpus: dict[int, tuple[int, str, int]]) -> Path:
    """A /sys of CPUs: number -> (socket, thread siblings, NUMA node)."""
    for cpu, (package, siblings, node) in cpus.items():
        topology = folder / "cpu" / f"cpu{cpu}" / "topology"
        topology.mkdir(parents=True)
        (topology / "physical_package_id").write_text(f"{package}\n")
        (topology / "thread_siblings_list").write_text(f"{siblings}\n")
        (topology.parent / f"node{node}").mkdir()
    return folder


def allow(monkeypatch: pytest.MonkeyPatch, cpus: set[int]) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: cpus)


def test_two_threads_of_a_core_are_one_core(tmp_path, monkeypatch):
    # Intel's numbering: the second threads of all cores come after the first ones.
    cpus = {cpu: (cpu % 4 // 2, f"{cpu % 4},{cpu % 4 + 4}", cpu % 4 // 2) for cpu in range(8)}
    allow(monkeypatch, set(range(8)))
    host = this_host(machine(tmp_path, cpus))
    assert (host.cores, host.sockets, host.threads_per_core, host.numa_nodes) == (4, 2, 2, 2)
    assert host.shape == ((2,), (2,))
    assert host.here


def test_only_what_may_be_used_counts(tmp_path, monkeypatch):
    cpus = {cpu: (cpu // 4, f"{cpu // 2 * 2}-{cpu // 2 * 2 + 1}", cpu // 4) for cpu in range(8)}
    allow(monkeypatch, {0, 1, 2})
    host = this_host(machine(tmp_path, cpus))
    assert (host.cores, host.sockets, host.threads_per_core, host.numa_nodes) == (2, 1, 2, 1)


def test_two_numa_nodes_a_socket(tmp_path, monkeypatch):
    cpus = {cpu: (cpu // 6, f"{cpu}", cpu // 3) for cpu in range(12)}
    allow(monkeypatch, set(range(12)) - {5})
    host = this_host(machine(tmp_path, cpus))
    assert (host.sockets, host.numa_nodes, host.shape) == (2, 4, ((3, 2), (3, 3)))


def test_where_a_process_stands(tmp_path, monkeypatch):
    cpus = {cpu: (cpu % 4 // 2, f"{cpu % 4},{cpu % 4 + 4}", cpu % 4 // 2) for cpu in range(8)}
    allow(monkeypatch, {1, 5, 2})
    found = standing(machine(tmp_path, cpus))
    assert found == Standing(cpus=[1, 2, 5], cores=["0.1", "1.2"], sockets=[0, 1], numa=[0, 1])


def test_a_hidden_sys_makes_every_cpu_a_core(tmp_path, monkeypatch):
    allow(monkeypatch, {3, 5, 7})
    host = this_host(tmp_path / "nothing")
    assert (host.cores, host.sockets, host.threads_per_core, host.numa_nodes) == (3, 1, 1, 1)


@pytest.mark.parametrize(
    ("cpuset", "own"),
    [
        ({1, 5}, None),  # all that there is
        ({1, 5, 2, 6}, (0,)),
        ({0, 4, 1, 5, 3, 7}, (1,)),
        ({0, 4, 1, 5, 6}, (1,)),
    ],
)
def test_the_cores_of_an_affinity_are_counted_over_the_cpuset(tmp_path, monkeypatch, cpuset, own):
    cpus = {cpu: (cpu % 4 // 2, f"{cpu % 4},{cpu % 4 + 4}", cpu % 4 // 2) for cpu in range(8)}
    allow(monkeypatch, {1, 5})
    assert this_host(machine(tmp_path, cpus), lambda: cpuset).own_cores == own


def test_a_core_that_may_be_used_in_part_is_none_to_give_away(tmp_path, monkeypatch):
    cpus = {cpu: (0, f"{cpu % 2},{cpu % 2 + 2}", 0) for cpu in range(4)}
    allow(monkeypatch, {0, 2, 1})
    assert this_host(machine(tmp_path, cpus), lambda: {0, 1, 2, 3}).own_cores == ()


def test_asking_for_the_cpuset_leaves_the_affinity_as_it_is():
    before = os.sched_getaffinity(0)
    narrow = {max(before)}
    os.sched_setaffinity(0, narrow)
    try:
        assert own_cpuset() == before
        assert os.sched_getaffinity(0) == narrow
        assert (this_host().own_cores is None) == (narrow == before)
    finally:
        os.sched_setaffinity(0, before)


def test_this_very_host_agrees_with_the_kernel():
    host = this_host()
    assert host.name == os.uname().nodename
    assert host.cores is not None
    assert host.cores * host.threads_per_core >= 1
    assert host.cores <= len(os.sched_getaffinity(0)) <= host.cores * host.threads_per_core
