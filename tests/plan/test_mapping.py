"""What the real launcher makes of a plan for a machine that is not there.

Open MPI 5 (hwloc) can be told a made-up topology, and says where it would put each rank without
starting any: so counts a host and cores a rank are checked on 2 hosts of 2 sockets and 32 cores.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from clusterseg.cluster.mpi import find_pairs
from clusterseg.errors import ClustersegError
from clusterseg.plan.layout import HostLayout, lay_out, shape_of
from clusterseg.plan.model import Host, LauncherPair
from clusterseg.plan.planner import fill
from clusterseg.submit.launchers import read_definitions
from tests.plan.plans import plan

pytestmark = pytest.mark.slow

DEFINITIONS = read_definitions({"CLUSTERSEG_CONFIG": "/nowhere"})
BINDS = ("core", "socket", "numa", "none")
TOPOLOGY = "pack:2 numa:1 core:16 pu:1"
HERE = Host(name="login1", cores=32, sockets=2, numa_nodes=2, here=True)
FAR = [Host(name=name, cores=32, sockets=2, numa_nodes=2) for name in ("n1", "n2")]
NODES = "pack:2 numa:2 core:8 pu:1"
HERE_IN_NODES = Host(name="login1", cores=32, sockets=2, numa_nodes=4, here=True)

Mapping = dict[str, dict[int, frozenset[int] | None]]  # host -> rank -> cores, None: unbound


@pytest.fixture(scope="module")
def pair() -> LauncherPair:
    for found in find_pairs(DEFINITIONS, os.environ):
        if found.name == "openmpi5":
            return found
    pytest.skip("no Open MPI 5 here")


def mapping(
    pair: LauncherPair, tmp_path: Path, keys: str, hosts: list[Host], topology: str = TOPOLOGY
) -> Mapping:
    """Where mpirun would put the ranks of a plan."""
    made = plan(
        keys, dialect=DEFINITIONS[pair.name], pair=pair, hosts=hosts, as_root=os.geteuid() == 0
    )
    hostfile = tmp_path / "hosts"
    hostfile.write_text(made.hostfile or "")
    argv = list(fill(made, run_dir="/r", hostfile=str(hostfile)).argv)
    argv[argv.index("--display") + 1] = "map"
    argv[1:1] = ["--rtos", "donotlaunch"]
    done = subprocess.run(
        argv,
        env={
            **os.environ,
            **made.environment,
            "HWLOC_SYNTHETIC": topology,
            "TMPDIR": str(tmp_path),  # Open MPI 5 does not start where one of its id was killed
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    where: Mapping = {}
    host, rank = "", -1
    for line in done.stdout.splitlines():
        if found := re.search(r"Data for node: (\S+)", line):
            host = found[1]
            where[host] = {}
        elif found := re.search(r"App rank: (\d+)", line):
            rank = int(found[1])
        elif found := re.search(r"\bBinding: (.*)", line):
            where[host][rank] = cores(found[1])
    assert where, done.stdout + done.stderr
    return where


def cores(binding: str) -> frozenset[int] | None:
    """The cores in PRRTE's words: `package[0][core:L0-3]`."""
    if "UNBOUND" in binding:
        return None
    found: set[int] = set()
    for part in re.findall(r"core:L([0-9,L-]+)", binding):
        for piece in part.replace("L", "").split(","):
            first, _, last = piece.partition("-")
            found |= set(range(int(first), int(last or first) + 1))
    return frozenset(found)


def test_the_eight_workers_of_the_seeds(pair, tmp_path):
    """8 workers on 32 cores: 4 cores each, none shared, none across sockets."""
    ((_, ranks),) = mapping(pair, tmp_path, "resources: {ranks: 8}\n", [HERE]).items()
    assert sorted(ranks) == list(range(8))
    bound = [own for own in ranks.values() if own is not None]
    assert [len(own) for own in bound] == [4] * 8
    assert frozenset.union(*bound) == frozenset(range(32))
    assert all(max(own) < 16 or min(own) >= 16 for own in bound)


@pytest.mark.parametrize(
    ("map_by", "bind_to"),
    [
        # What is left out, Open MPI 5 can't do, and the planner refuses.
        *(("core", bind_to) for bind_to in ("core", "none")),
        *(("socket", bind_to) for bind_to in BINDS),
        *(("numa", bind_to) for bind_to in BINDS if bind_to != "socket"),
    ],
)
def test_unequal_hosts_get_what_was_planned(pair, tmp_path, map_by, bind_to):
    keys = (
        "resources: {hosts: {n1: 4, n2: 2}, cpus_per_rank: 4}\n"
        f"placement: {{map_by: {map_by}, bind_to: {bind_to}}}\n"
    )
    where = mapping(pair, tmp_path, keys, FAR)
    assert {host: len(ranks) for host, ranks in where.items()} == {"n1": 4, "n2": 2}
    widths = {own and len(own) for ranks in where.values() for own in ranks.values()}
    assert widths == {{"core": 4, "socket": 16, "numa": 16, "none": None}[bind_to]}
    if bind_to == "core":
        for ranks in where.values():
            taken = [core for own in ranks.values() for core in own or ()]
            assert len(taken) == len(set(taken)), "no core has two ranks"
    if map_by == "socket" and bind_to == "socket":
        assert len(set(where["n1"].values())) == 2, "both sockets are used"


@pytest.mark.parametrize(
    ("layout", "ranks", "cpus"),
    [
        (("socket", "core"), 7, 4),
        (("socket", "core"), 3, 8),
        (("socket", "socket"), 3, 8),
        (("numa", "core"), 6, 4),
        (("numa", "numa"), 5, 4),
        (("core", "core"), 8, 4),
        (("core", "core"), 4, 8),
    ],
)
def test_each_rank_stands_on_the_socket_and_numa_node_that_is_expected(
    pair, tmp_path, layout, ranks, cpus
):
    map_by, bind_to = layout
    keys = (
        f"resources: {{ranks: {ranks}, cpus_per_rank: {cpus}}}\n"
        f"placement: {{map_by: {map_by}, bind_to: {bind_to}}}\n"
    )
    ((_, where),) = mapping(pair, tmp_path, keys, [HERE_IN_NODES], NODES).items()
    expected = lay_out(shape_of(HERE_IN_NODES), ranks, cpus, map_by, bind_to)
    assert isinstance(expected, HostLayout)
    for rank, own in where.items():
        assert {core // 16 for core in own or ()} == {expected.sockets[rank]}
        if expected.numa[rank] is not None:
            assert {core // 8 for core in own or ()} == {expected.numa[rank]}


@pytest.mark.parametrize(("map_by", "ranks", "cpus"), [("socket", 3, 10), ("core", 3, 10)])
def test_what_the_planner_refuses_mpirun_refuses(pair, tmp_path, map_by, ranks, cpus):
    """The planner is told of a machine on which it would fit, the launcher of the real one."""
    keys = (
        f"resources: {{ranks: {ranks}, cpus_per_rank: {cpus}}}\nplacement: {{map_by: {map_by}}}\n"
    )
    with pytest.raises(ClustersegError, match="socket 0"):
        plan(keys, hosts=[HERE])
    with pytest.raises(AssertionError, match=r"bind|cpus|package"):
        mapping(pair, tmp_path, keys, [Host(name="login1", cores=32, here=True)])


@pytest.mark.parametrize("bind_to", ["core", "none"])
def test_equal_hosts_by_node(pair, tmp_path, bind_to):
    keys = (
        "resources: {hosts: {n1: 4, n2: 4}, cpus_per_rank: 4}\n"
        f"placement: {{map_by: node, bind_to: {bind_to}}}\n"
    )
    where = mapping(pair, tmp_path, keys, FAR)
    assert {host: sorted(ranks) for host, ranks in where.items()} == {
        "n1": [0, 2, 4, 6],
        "n2": [1, 3, 5, 7],
    }


@pytest.mark.parametrize("map_by", ["core", "socket", "numa"])
def test_unequal_hosts_that_share_cores(pair, tmp_path, map_by):
    keys = (
        "resources: {hosts: {n1: 40, n2: 3}, cpus_per_rank: 1}\n"
        f"placement: {{map_by: {map_by}, oversubscribe: true}}\n"
    )
    where = mapping(pair, tmp_path, keys, FAR)
    assert {host: len(ranks) for host, ranks in where.items()} == {"n1": 40, "n2": 3}
    assert {own for ranks in where.values() for own in ranks.values()} == {None}


@pytest.mark.parametrize("map_by", ["core", "socket", "numa", "node"])
def test_one_host_that_shares_cores(pair, tmp_path, map_by):
    keys = f"resources: {{ranks: 70}}\nplacement: {{map_by: {map_by}, oversubscribe: true}}\n"
    ((_, ranks),) = mapping(pair, tmp_path, keys, [HERE]).items()
    assert len(ranks) == 70
