"""The development cluster: a real Slurm that comes up, breaks where asked, goes without a trace."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import devcluster
from tests.devcluster import TOOL, DevCluster, tool

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

MakeCluster = Callable[..., DevCluster]


# Going without a trace.


def traces(name: str) -> list[str]:
    """What there is of a cluster on this machine: processes, networks, mounts, files."""
    folder = Path("/tmp/clusterseg-devcluster") / name
    found = [str(path) for path in (folder, folder.with_suffix(".lock")) if path.exists()]
    found += [line for line in Path("/proc/self/mounts").read_text().splitlines() if name in line]
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = process.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if f"/{name}/" in line:
            found.append(f"{process.parent.name}: {line}")
    return found


def networks() -> set[str]:
    """Bridges, cables and namespaces of every cluster."""
    spaces = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    links = {path.name for path in Path("/sys/class/net").glob("cs[dv]*")}
    return links | {line.split()[0] for line in spaces.stdout.splitlines()}


def status(name: str) -> dict[str, Any]:
    (found,) = json.loads(tool("status", "--json", "--name", name).stdout)["clusters"]
    assert isinstance(found, dict)
    return found


def network_of(name: str) -> set[str]:
    """The bridge, cables and namespaces of a cluster, be it whole or not."""
    if not (network := status(name)["network"]):
        return set()
    index = network.split(".")[2]
    return {each for each in networks() if re.match(rf"cs(dev|v){index}(-|$)", each)}


@pytest.fixture
def name(slurm_cluster: DevCluster) -> Iterator[str]:
    """A name for a cluster of this test's own (only where there can be one)."""
    own = devcluster.session_name("raw")
    yield own
    devcluster.stop(own)


def test_down_leaves_nothing_not_even_what_a_job_detached(make_devcluster: MakeCluster) -> None:
    cluster = make_devcluster(nodes=2)
    network = network_of(cluster.name)
    assert len(network) == 1 + 2 + 2
    job = cluster.sbatch("-N2", "--wrap", "trap '' TERM; srun sleep 600 & setsid sleep 600 & wait")
    cluster.wait_until(job, "RUNNING")
    cluster.on_node("n2", "sh", "-c", "setsid sleep 600 >/dev/null 2>&1 &")
    on_nodes = pids_on_nodes(cluster)
    assert len(on_nodes) > 4
    cluster.stop()
    assert traces(cluster.name) == []
    assert not network & networks()
    assert not [pid for pid in on_nodes if running(pid)]


def pids_on_nodes(cluster: DevCluster) -> list[int]:
    spaces = [each for each in network_of(cluster.name) if "-n" in each]
    return [
        int(pid)
        for space in spaces
        for pid in subprocess.check_output(["ip", "netns", "pids", space]).split()
    ]


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_down_of_nothing_is_fine(name: str) -> None:
    done = tool("down", "--name", name)
    assert (done.returncode, done.stderr) == (0, "")
    assert traces(name) == []


@pytest.mark.parametrize("moment", [0.15, 0.3, 0.5])
def test_down_after_an_up_that_was_killed(name: str, moment: float) -> None:
    up = subprocess.Popen([TOOL, "up", "--name", name], stdout=subprocess.DEVNULL)
    time.sleep(moment)
    up.kill()
    up.wait()
    network = network_of(name)
    assert tool("down", "--name", name).returncode == 0
    assert traces(name) == []
    assert not network & networks()
    assert status(name) == {"name": name, "state": "none", "network": None}


def test_an_up_that_is_interrupted_cleans_up_itself(name: str) -> None:
    up = subprocess.Popen([TOOL, "up", "--name", name], stderr=subprocess.PIPE, text=True)
    folder = Path("/tmp/clusterseg-devcluster") / name
    while not folder.exists():
        time.sleep(0.01)
    up.send_signal(signal.SIGTERM)
    assert up.communicate(timeout=60)[1] == "interrupted\n"
    assert up.returncode == 130
    assert traces(name) == []


def test_an_up_that_slurm_refuses_says_why_and_leaves_nothing(name: str) -> None:
    done = tool("up", "--name", name, "--conf", "NoSuchKey=1")
    assert done.returncode == 1
    assert "NoSuchKey" in done.stderr
    assert traces(name) == []


# Coming up.


def test_up_of_one_that_is_up_changes_nothing(make_devcluster: MakeCluster) -> None:
    cluster = make_devcluster(nodes=1)
    before = pids_on_nodes(cluster)
    for again in (["up"], ["up", "--nodes", "1", "--cores", "2"]):
        done = tool(*again, "--name", cluster.name)
        assert (done.returncode, "is up already" in done.stdout) == (0, True)
    assert pids_on_nodes(cluster) == before
    other = tool("up", "--name", cluster.name, "--nodes", "2", "--preempt-signal")
    assert other.returncode == 1
    assert "--nodes is 1, not 2" in other.stderr
    assert "--preempt-signal is off, not on" in other.stderr


def test_up_of_one_that_is_half_dead_starts_it_anew(make_devcluster: MakeCluster) -> None:
    cluster = make_devcluster(nodes=2)
    cluster.fault("controller", "kill")
    assert cluster.status["state"] == "broken"
    assert tool("up", "--name", cluster.name, "--nodes", "2").returncode == 0
    assert cluster.status["state"] == "up"
    assert cluster.run("srun", "-N2", "hostname").stdout.split() != []


def test_clusters_started_at_the_same_moment_do_not_collide(name: str) -> None:
    names = [f"{name}{letter}" for letter in "abc"]
    try:
        # One of them twice: the second finds it up.
        ups = [subprocess.Popen([TOOL, "up", "--nodes", "1", "--name", n]) for n in [*names, name]]
        ups.append(subprocess.Popen([TOOL, "up", "--nodes", "1", "--name", name]))
        assert [up.wait(timeout=120) for up in ups] == [0] * 5
        clusters = [status(each) for each in [*names, name]]
        assert [cluster["state"] for cluster in clusters] == ["up"] * 4
        assert len({cluster["network"] for cluster in clusters}) == 4
        for each in names:
            assert tool("down", "--name", each).returncode == 0
            assert traces(each) == []
        assert tool("status", "--name", name).stdout.startswith(f"{name}: up")
    finally:
        for each in names:
            devcluster.stop(each)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["up", "--name", "A"], "'A' is no name"),
        (["up", "--name", "../x"], "'../x' is no name"),
        (["up", "--name", "seventeen-letters"], "is no name"),
        (["up", "--nodes", "0"], "--nodes 0"),
        (["up", "--nodes", "400"], "--nodes 400"),
        (["up", "--cores", "0"], "--cores 0"),
        (["up", "--conf", "NoValue"], "form Key=Value"),
        (["up", "--conf", "A=1\nB=2"], "form Key=Value"),
        (["up", "--conf", "SlurmctldPort=1"], "sets this itself"),
        (["exec", "n1", "--", "true"], "no cluster"),
        (["env"], "no cluster"),
        (["fault", "n1", "cut"], "no cluster"),
    ],
)
def test_wrong_usage_is_one_clear_error(arguments: list[str], said: str) -> None:
    named = arguments if "--name" in arguments else [arguments[0], "--name", "nx", *arguments[1:]]
    done = tool(*named)
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_path_too_long_for_sockets_is_refused(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 90)
    environ = {**os.environ, "CLUSTERSEG_DEVCLUSTER": str(long)}
    done = subprocess.run([TOOL, "up"], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "too long for the sockets" in done.stderr
    assert not long.exists()


# Being a Slurm.


def test_a_batch_job_runs_its_tasks_on_nodes_of_their_own(
    slurm_cluster: DevCluster, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    job = slurm_cluster.sbatch("-N4", "-n8", "-o", output, "--wrap", "srun hostname")
    slurm_cluster.wait_until(job, "COMPLETED")
    assert sorted(output.read_text().split()) == ["n1", "n1", "n2", "n2", "n3", "n3", "n4", "n4"]


def test_the_environment_can_be_taken_into_a_shell(slurm_cluster: DevCluster) -> None:
    script = 'eval "$("$0" env --name "$1")" && env | grep ^SLURM_ && sinfo -h -o %P'
    done = subprocess.run(
        ["bash", "-euc", script, TOOL, slurm_cluster.name],
        env={**os.environ, "SLURM_CPU_BIND": "mask_cpu:0x1", "SLURM_JOB_ID": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [f"SLURM_CONF={slurm_cluster.slurm_conf}", "low*", "high"]


def test_a_command_on_a_node_sees_the_node(slurm_cluster: DevCluster, tmp_path: Path) -> None:
    script = 'hostname; pwd; echo "$1"; getent hosts n3; ip -4 -o addr show eth0; exit 7'
    argv = ["exec", "--name", slurm_cluster.name, "n2", "--", "sh", "-c", script, "sh"]
    done = subprocess.run(
        [TOOL, *argv, "two  words; $x"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 7
    lines = done.stdout.splitlines()
    assert lines[:3] == ["n2", str(tmp_path), "two  words; $x"]
    assert re.fullmatch(r"10\.77\.\d+\.3\s+n3", lines[3])
    assert re.search(r"10\.77\.\d+\.2/24", lines[4])


def test_a_mount_made_on_a_node_is_seen_by_its_jobs_and_by_no_other(
    slurm_cluster: DevCluster, tmp_path: Path
) -> None:
    seen, other = tmp_path / "seen", tmp_path / "other"
    seen.mkdir()
    other.mkdir()
    (other / "file").touch()
    assert slurm_cluster.on_node("n1", "mount", "--bind", other, seen).returncode == 0
    said = [slurm_cluster.run("srun", "-w", node, "ls", seen).stdout for node in ("n1", "n2")]
    assert said == ["file\n", ""]
    assert list(seen.iterdir()) == []
    slurm_cluster.on_node("n1", "umount", seen)


RANK = """
from mpi4py import MPI
import os, socket
world = MPI.COMM_WORLD
total = world.allreduce(world.rank)
cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
print("rank", world.rank, world.size, total, socket.gethostname(), cores, flush=True)
"""
MPIRUN = "mpirun --allow-run-as-root --bind-to core"


@pytest.mark.parametrize("launcher", ["srun --mpi=pmix --cpu-bind=cores", MPIRUN])
def test_ranks_of_one_world_on_several_nodes_each_on_its_core(
    slurm_cluster: DevCluster, tmp_path: Path, launcher: str
) -> None:
    if "pmix" in launcher and not any(Path("/usr/lib").glob("*/pmix2/lib/libpmix.so")):
        pytest.skip("srun --mpi=pmix needs Debian's libpmix-dev")
    (tmp_path / "rank.py").write_text(RANK)
    script = f"#!/bin/bash\n{launcher} {sys.executable} {tmp_path / 'rank.py'}\n"
    output = tmp_path / "out"
    job = slurm_cluster.sbatch("-N2", "--ntasks-per-node=2", "-o", output, script=script)
    slurm_cluster.wait_until(job)
    ranks = re.findall(r"^rank (\d) (\d) (\d) (n\d) ([\d,]+)$", output.read_text(), re.MULTILINE)
    assert sorted(ranks) == [
        ("0", "4", "6", "n1", "0"),
        ("1", "4", "6", "n1", "1"),
        ("2", "4", "6", "n2", "0"),
        ("3", "4", "6", "n2", "1"),
    ], output.read_text()


PREEMPTED = """#!/bin/bash
echo "start ${SLURM_RESTART_COUNT:-0}"
trap 'echo notice' USR1
sleep 600 &
wait; wait
"""


@pytest.mark.parametrize(
    ("signalled", "conf"), [(False, []), (True, ["low.GraceTime=3", "KillWait=2"])]
)
def test_a_job_of_high_preempts_one_of_low_which_starts_again(
    make_devcluster: MakeCluster, tmp_path: Path, signalled: bool, conf: list[str]
) -> None:
    cluster = make_devcluster(nodes=4, preempt_signal=signalled, conf=conf)
    output = tmp_path / "low"
    options = ["-p", "low", "-N4", "--exclusive", "--requeue", "--signal=B:USR1@30"]
    low = cluster.sbatch(*options, "--open-mode=append", "-o", output, script=PREEMPTED)
    cluster.wait_until(low, "RUNNING")
    high = cluster.sbatch("-p", "high", "-N4", "--exclusive", "--wrap", "sleep 1")
    cluster.wait_until(high, "COMPLETED")
    again = cluster.wait_until(low, "RUNNING", timeout=30)
    assert again["Restarts"] == "1"
    deadline = time.monotonic() + 10
    while output.read_text().count("start") < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    lines = [line for line in output.read_text().splitlines() if not line.startswith("slurmstepd")]
    assert lines == ["start 0", *["notice"] * signalled, "start 1"]


def test_what_the_partitions_do_not_allow_is_refused(slurm_cluster: DevCluster) -> None:
    for wrong, said in (
        (["-p", "gpu"], "invalid partition"),
        (["-t", "30-0"], "time limit is invalid"),
        (["-N", "9"], "Batch job submission failed"),
        (["--mem", "100T"], "Memory specification can not be satisfied"),
    ):
        done = slurm_cluster.run("sbatch", *wrong, "--wrap", "true", check=False)
        assert done.returncode != 0
        assert said in done.stderr


def test_a_node_that_is_cut_off_is_down_and_comes_back(make_devcluster: MakeCluster) -> None:
    cluster = make_devcluster(nodes=2, conf=["SlurmdTimeout=5", "MessageTimeout=3"])
    job = cluster.sbatch("-N1", "-w", "n1", "--requeue", "--wrap", "sleep 600")
    cluster.wait_until(job, "RUNNING")
    with cluster.broken("n1", "cut", "join"):
        cluster.wait_until_node("n1", r"DOWN.*")
        assert cluster.node("n2")["State"] == "IDLE"
        assert cluster.job(job)["Restarts"] == "1"
    cluster.clean()
    assert cluster.node("n1")["State"] == "IDLE"
    assert cluster.squeue() == []


@pytest.mark.parametrize(
    ("where", "breaking"),
    [("n1", "kill-slurmd"), ("n1", "stop-slurmd"), ("n1", "cut"), ("controller", "kill")],
)
def test_cleaning_mends_faults_and_ends_jobs(
    slurm_cluster: DevCluster, where: str, breaking: str
) -> None:
    pids = pids_on_nodes(slurm_cluster)
    job = slurm_cluster.sbatch("-w", "n1", "--wrap", "trap '' TERM; setsid sleep 600 & sleep 600")
    slurm_cluster.wait_until(job, "RUNNING")
    slurm_cluster.fault(where, breaking)
    slurm_cluster.clean()
    # A slurmd that was killed has another pid now, nothing else has.
    assert len(pids_on_nodes(slurm_cluster)) == len(pids)
    assert slurm_cluster.run("srun", "-N4", "hostname").returncode == 0


def test_accounting_knows_jobs_and_accounts(make_devcluster: MakeCluster) -> None:
    cluster = make_devcluster(nodes=1, accounting=True)
    job = cluster.sbatch("--wrap", "exit 3")
    cluster.wait_until(job, "FAILED")
    wanted = f"{job}|FAILED|3:0"
    deadline = time.monotonic() + 20
    ask = ["sacct", "-X", "-n", "-P", "-j", str(job), "-o", "JobID,State,ExitCode"]
    while (said := cluster.run(*ask).stdout.strip()) != wanted and time.monotonic() < deadline:
        time.sleep(0.5)
    assert said == wanted
    assert "dev" in cluster.run("sacctmgr", "-n", "-P", "show", "account").stdout
    known = cluster.run("sacctmgr", "-n", "-P", "show", "cluster", "format=cluster").stdout
    assert known.split() == [f"devcluster-{cluster.name}"]
    done = cluster.run("sbatch", "--account=nobody", "--wrap", "true", check=False)
    assert "Invalid account" in done.stderr


def test_without_accounting_sacct_says_that_there_is_none(slurm_cluster: DevCluster) -> None:
    done = slurm_cluster.run("sacct", check=False)
    assert done.returncode == 1
    assert "accounting storage is disabled" in done.stderr
