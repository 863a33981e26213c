"""Where each launcher would put ranks on a machine that is not there, beside the planned layout.

hwloc takes a made-up topology from a variable. Open MPI 4 shows its map and starts nothing; Hydra
says what it binds each rank to, Intel MPI tells each rank; that the cores are not there, neither
minds. Cores are counted over the host: 2 sockets of 2 NUMA nodes of 8 cores.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from clusterseg.errors import ClustersegError
from clusterseg.plan.layout import HostLayout, lay_out, shape_of
from clusterseg.plan.model import Host, LauncherPair, Plan
from clusterseg.plan.planner import fill
from tests.plan.plans import plan

TOPOLOGY = "pack:2 numa:2 core:8 pu:1"
HERE = Host(name=os.uname().nodename, cores=32, sockets=2, numa_nodes=4, here=True)
LAYOUTS = [
    ("socket", "core", 8, 4),
    ("socket", "core", 5, 3),
    ("socket", "core", 3, 8),
    ("socket", "socket", 3, 8),
    ("socket", "numa", 6, 4),
    ("numa", "core", 6, 4),
    ("numa", "numa", 5, 4),
    ("numa", "socket", 6, 4),
    ("core", "core", 8, 4),
    ("core", "core", 3, 8),
    ("core", "socket", 6, 4),
    ("core", "numa", 6, 4),
]
# What a launcher would do in another way than all others, and is refused.
REFUSED = {
    "openmpi4": {("core", "socket"), ("core", "numa")},
    "mpich": set(),
    "intelmpi": {
        *(("core", "socket"), ("core", "numa"), ("socket", "numa")),
        *(("numa", "core"), ("numa", "socket")),
    },
}
Cores = Mapping[int, frozenset[int]]  # by rank


@pytest.mark.parametrize("name", ["openmpi4", "mpich", "mpich4", "intelmpi"])
@pytest.mark.parametrize(("map_by", "bind_to", "ranks", "cpus"), LAYOUTS)
def test_ranks_stand_where_the_plan_expects_them(  # noqa: PLR0917 (what a case is made of)
    mpi_prefix: Callable[[str], Path],
    tmp_path: Path,
    name: str,
    map_by: str,
    bind_to: str,
    ranks: int,
    cpus: int,
) -> None:
    launcher = name.removesuffix("4") if name == "mpich4" else name
    try:
        made = planned(launcher, mpi_prefix(name), map_by, bind_to, ranks, cpus)
    except ClustersegError as error:
        assert error.code == "placement"
        assert (map_by, bind_to) in REFUSED[launcher]
        return
    where = {"openmpi4": open_mpi, "mpich": hydra, "intelmpi": intel}[launcher](made, tmp_path)
    expected = lay_out(shape_of(HERE), ranks, cpus, map_by, bind_to)  # type: ignore[arg-type]
    assert isinstance(expected, HostLayout)
    assert sorted(where) == list(range(ranks))
    for rank, own in where.items():
        assert {core // 16 for core in own} == {expected.sockets[rank]}, where
        if expected.numa[rank] is not None and bind_to != "core":
            assert {core // 8 for core in own} == {expected.numa[rank]}, where
    if bind_to == "core":
        taken = [core for own in where.values() for core in own]
        assert len(taken) == len(set(taken)) == ranks * cpus


@pytest.mark.parametrize("name", ["mpich", "intelmpi"])
def test_what_the_planner_refuses_is_not_what_was_asked_for(
    mpi_prefix: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    """3 ranks of 10 cores on 2 × 16: no launcher says a word, but two ranks have cores in common
    (MPICH), or one has fewer (Intel MPI)."""
    even = Host(name=HERE.name, cores=32, here=True)
    made = planned(name, mpi_prefix(name), "socket", "core", 3, 10, host=even)
    where = {"mpich": hydra, "intelmpi": intel}[name](made, tmp_path)
    assert len(where) == 3
    assert len({core for own in where.values() for core in own}) < 30
    with pytest.raises(ClustersegError, match="on socket 0 = 2 × 10 = 20, but it has 16 cores"):
        planned(name, mpi_prefix(name), "socket", "core", 3, 10)


def planned(  # noqa: PLR0917 (as above)
    launcher: str,
    prefix: Path,
    map_by: str,
    bind_to: str,
    ranks: int,
    cpus: int,
    host: Host = HERE,
) -> Plan:
    program = prefix / "bin" / ("mpirun" if launcher == "openmpi4" else "mpiexec")
    return plan(
        f"resources: {{ranks: {ranks}, cpus_per_rank: {cpus}}}\n"
        f"placement: {{map_by: {map_by}, bind_to: {bind_to}}}\n",
        launcher,
        pair=LauncherPair(name=launcher, version="", program=str(program), prefix=str(prefix)),
        hosts=[host],
        as_root=os.geteuid() == 0,
    )


def said(made: Plan, program: list[str], *further: str) -> str:
    """What the plan's launch line prints with another `program`."""
    argv = list(fill(made, run_dir="/r").argv)
    argv[len(argv) - made.rank_words :] = program
    argv[1:1] = further
    done = subprocess.run(
        argv,
        env={**os.environ, **made.environment, "HWLOC_SYNTHETIC": TOPOLOGY},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr


def open_mpi(made: Plan, folder: Path) -> Cores:
    hostfile = folder / "hosts"
    hostfile.write_text(f"{HERE.name} slots=32\n")
    flags = ("--hostfile", str(hostfile), "--do-not-launch", "--display-devel-map")
    text = said(made, ["true"], *flags)
    ranks = re.findall(r"App rank: (\d+)", text)
    bindings = re.findall(r"Binding: (\[.*\])", text)
    return {
        int(rank): frozenset(
            n for n, cell in enumerate(re.findall(r"[B.]", binding)) if cell == "B"
        )
        for rank, binding in zip(ranks, bindings, strict=True)
    }


def hydra(made: Plan, folder: Path) -> Cores:
    # On a busy machine mpiexec of 5.0.2 dies of SIGPIPE where ranks end as soon as they start.
    text = said(made, ["sleep", "0.3"])
    return {
        int(rank): frozenset(core for core, bit in enumerate(bits) if bit == "1")
        for rank, bits in re.findall(r"process (\d+) binding: ([01]+)", text)
    }


def intel(made: Plan, folder: Path) -> Cores:
    text = said(made, ["sh", "-c", 'echo "rank=$PMI_RANK cores=$I_MPI_PIN_INFO;"'])
    return {
        int(rank): frozenset(map(int, re.findall(r"\d+", cores)))
        for rank, cores in re.findall(r"rank=(\d+) cores=([\d,x]+);", text)
    }
