"""Ranks are where the plan has them, on as many cores, and in its order: as they see it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.launchers.hosts import Hosts
from tests.launchers.jobs import Job, Mpi, cores_here

AS_PLANNED = "placement: the ranks are where they were planned to be"


def test_two_ranks_on_this_host_have_a_core_each(mpi: Mpi, tmp_path: Path) -> None:
    job = Job(mpi, tmp_path)
    ranks = job.done()
    assert of_all(ranks, "rank") == of_all(ranks, "local_rank") == [0, 1]
    assert_one_world(mpi, ranks, 2)
    assert len(set(of_all(ranks, "host"))) == 1
    assert_cores_of_their_own(ranks)
    assert AS_PLANNED in job.account()


@pytest.mark.parametrize("counts", [(2, 2), (2, 1)], ids="n1:{0[0]} n2:{0[1]}".format)
def test_ranks_are_on_their_hosts_in_order(
    mpi: Mpi, counts: Sequence[int], hosts: Callable[..., Hosts], tmp_path: Path
) -> None:
    job = Job(mpi, tmp_path, hosts=hosts(2), counts=counts)
    ranks = job.done()
    assert_one_world(mpi, ranks, sum(counts))
    planned = [(f"n{n}", local) for n, count in enumerate(counts, 1) for local in range(count)]
    assert list(zip(of_all(ranks, "host"), of_all(ranks, "local_rank"), strict=True)) == planned
    for host in ("n1", "n2"):
        assert_cores_of_their_own([rank for rank in ranks if rank["host"] == host])
    assert AS_PLANNED in job.account()
    assert "ould not find" not in job.account()  # a variable that is passed on, and is not set


def test_ranks_that_are_elsewhere_are_noticed(
    mpi: Mpi, hosts: Callable[..., Hosts], tmp_path: Path
) -> None:
    """An ssh that leads to the other host: as many ranks as planned, with the counts swapped.
    Open MPI 5 asks the hosts for their names, and starts none; of the others only we see it."""
    two = hosts(2)
    leads_astray = two.agent.read_text().replace("host=$1;", 'host=$(echo "$1" | tr 12 21);')
    two.agent.write_text(leads_astray)
    job = Job(
        mpi, tmp_path, "listen", hosts=two, counts=(2, 1), keys={"placement": {"verify": "fail"}}
    )
    code, said = job.ended()
    assert code == 1, said
    assert {rank["host"] for rank in job.seen()} <= {"n1", "n2"}
    swapped = "the ranks run on {n1: 1, n2: 2}, the plan says {n1: 2, n2: 1}"
    refusal = "There are not enough slots available in the system to satisfy the 3"
    assert (refusal if mpi.launcher == "openmpi5" else swapped) in job.end()["error"]


@pytest.mark.parametrize("mpi", ["mpich4"], indirect=True)
def test_the_mpich_before_does_as_its_successor(
    mpi: Mpi, hosts: Callable[..., Hosts], tmp_path: Path
) -> None:
    test_ranks_are_on_their_hosts_in_order(mpi, (2, 1), hosts, tmp_path)


@pytest.mark.parametrize("bind_to", ["none", "socket"])
def test_ranks_that_share_have_all_cores(mpi: Mpi, bind_to: str, tmp_path: Path) -> None:
    """This machine's, or those of the socket that the rank is on."""
    ranks = Job(mpi, tmp_path, keys={"placement": {"bind_to": bind_to}}).done()
    here = sorted(cpu for core in cores_here() for cpu in core)
    for rank in ranks:
        assert set(rank["cpus"]) <= set(here)
        assert rank["cpus"] == (here if bind_to == "none" else socket_of(rank["cpus"][0], here))


def assert_one_world(mpi: Mpi, ranks: Sequence[dict[str, Any]], size: int) -> None:
    """All are ranks of one job, on the libmpi of the mpirun that started them."""
    assert of_all(ranks, "rank") == of_all(ranks, "told_rank") == list(range(size))
    assert set(of_all(ranks, "size")) == {size}
    assert set(of_all(ranks, "sum")) == {sum(range(size))}
    assert {rank["library"].startswith(mpi.library) for rank in ranks} == {True}
    assert set(of_all(ranks, "threads")) == {"1"}


def assert_cores_of_their_own(ranks: Sequence[dict[str, Any]]) -> None:
    cores = [frozenset(rank["cpus"]) for rank in ranks]
    assert set(cores) <= cores_here()
    assert len(set(cores)) == len(cores)


def socket_of(cpu: int, here: Sequence[int]) -> list[int]:
    def package(number: int) -> str:
        return Path(f"/sys/devices/system/cpu/cpu{number}/topology/physical_package_id").read_text()

    return [other for other in here if package(other) == package(cpu)]


def of_all(ranks: Sequence[dict[str, Any]], key: str) -> list[Any]:
    return [rank[key] for rank in ranks]
