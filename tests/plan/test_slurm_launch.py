"""Plans for Slurm executed: rendered scripts on a real Slurm, up to the ranks and their cores."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from clusterseg.cluster.topology import this_host
from clusterseg.plan.model import HOSTFILE, Plan
from clusterseg.plan.planner import fill, place
from clusterseg.submit import request
from clusterseg.submit.doctor import examine
from clusterseg.submit.request import read_request
from tests.devcluster import DevCluster

pytestmark = [pytest.mark.slow, pytest.mark.slurm, pytest.mark.timeout(300)]

LAUNCHERS = ("srun", "openmpi5")
CORES = (this_host().cores or 1) >= 2

# Stands for the supervisor and for the rank's wrapper: each runs what it is given.
PASSES_ON = """#!/bin/sh
case $1 in
attempt)
    export CLUSTERSEG_RUN_DIR="$2" CLUSTERSEG_ATTEMPT=0 CLUSTERSEG_STOP_FILE="$2/control/stop-000"
    shift 3; exec "$@";;
train) shift 3; exec "$@";;
esac
"""
# What a rank sees, as one JSON file a rank; without an MPI: the launchers' own variables.
LOOK = """
import json, os, sys
seen = {
    "rank": int(os.environ.get("PMIX_RANK", os.environ.get("SLURM_PROCID"))),
    "host": os.uname().nodename,
    "cpus": sorted(os.sched_getaffinity(0)),
    "environment": dict(os.environ),
    "arguments": sys.argv[2:],
    "directory": os.getcwd(),
}
with open(os.path.join(sys.argv[1], f"{seen['rank']:02d}.json"), "w") as file:
    json.dump(seen, file)
"""
# The world that a rank of the embedded MPI is in.
WORLD = """
import json, os, sys
from mpi4py import MPI
world = MPI.COMM_WORLD
everybody = world.allgather((world.rank, os.uname().nodename))
with open(os.path.join(sys.argv[1], f"{world.rank:02d}.json"), "w") as file:
    json.dump({"size": world.size, "everybody": everybody, "libmpi": os.environ["MPI4PY_LIBMPI"]}, file)
"""  # noqa: E501


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the job runs, with what stands for clusterseg; its name needs quoting everywhere."""
    work = tmp_path / "work dir's #1"
    work.mkdir()
    program = tmp_path / "clusterseg"
    program.write_text(PASSES_ON)
    program.chmod(0o700)
    monkeypatch.setattr(request, "own_program", lambda: (str(program),))
    monkeypatch.chdir(work)
    return work


def planned(
    cluster: DevCluster, folder: Path, code: str, *overrides: str, arguments: Sequence[str] = ()
) -> Plan:
    words = json.dumps(
        [sys.executable, "-c", code.replace("${", "$${"), str(folder), *arguments],
        ensure_ascii=False,
    )
    text = f"name: demo\ncommand: {words}\nrestart: {{preemption: 0, time_limit: 0, node: 0}}\n"
    return read_request("job.yaml", overrides, cluster.environ, text=text)


def run(cluster: DevCluster, folder: Path, plan: Plan, **environ: str) -> list[dict[str, Any]]:
    """Gives the script to sbatch; what each rank saw, in the order of ranks."""
    if plan.hostfile is not None:
        file = folder / "hostfile"
        file.write_text(place(plan, cluster.nodes).hostfile or "")
        plan = replace(plan, argv=tuple(str(file) if w == HOSTFILE else w for w in plan.argv))
    plan = fill(plan, run_dir=str(folder / "run"), output=str(folder / "out %j#1%.log"), after="")
    script = folder / "batch.sh"
    script.write_text(plan.script)
    said = cluster.run("sbatch", "--parsable", script, cwd=Path("/"), env=environ or None).stdout
    job = said.split(";")[0].strip()
    fields = cluster.wait_until(job, timeout=120)
    output = (folder / "out %j#1%.log").read_text()
    assert fields["JobState"] == "COMPLETED", output
    assert "Warning" not in output
    return [json.loads(file.read_text()) for file in sorted(folder.glob("[0-9]*.json"))]


@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize(
    ("resources", "hosts", "cpus"),
    [
        ("{nodes: 3, ranks_per_node: 2}", ["n1", "n1", "n2", "n2", "n3", "n3"], 1),
        ("{nodes: 2, ranks: 3, cpus_per_rank: 1}", ["n1", "n1", "n2"], 1),
        ("{nodes: 2, ranks_per_node: 1, cpus_per_rank: 2}", ["n1", "n2"], 2),
        ("{hosts: {n4: 2, n2: 1}, cpus_per_rank: 1}", ["n4", "n4", "n2"], 1),
    ],
    ids=["equal", "unequal", "two-cores", "named"],
)
def test_ranks_have_their_hosts_and_cores(
    *,
    slurm_cluster: DevCluster,
    folder: Path,
    launcher: str,
    resources: str,
    hosts: list[str],
    cpus: int,
) -> None:
    plan = planned(slurm_cluster, folder, LOOK, f"resources={resources}", f"launcher={launcher}")
    assert plan.slurm is not None
    assert plan.slurm.site == "devcluster"
    seen = run(slurm_cluster, folder, plan)
    assert [rank["host"] for rank in seen] == hosts
    assert {rank["directory"] for rank in seen} == {str(folder)}
    assert {rank["environment"]["OMP_NUM_THREADS"] for rank in seen} == {str(cpus)}
    if not CORES:
        return  # ranks can't have cores of their own on a machine of one core
    for host in set(hosts):
        bound = [set(rank["cpus"]) for rank in seen if rank["host"] == host]
        assert all(len(one) == cpus for one in bound), bound
        assert len(set.union(*bound)) == cpus * len(bound), "no two share a core"


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_the_embedded_mpi_makes_one_world_of_them(
    slurm_cluster: DevCluster, folder: Path, launcher: str
) -> None:
    resources = "resources={nodes: 3, ranks_per_node: 1, cpus_per_rank: 1}"
    plan = planned(slurm_cluster, folder, WORLD, resources, f"launcher={launcher}")
    # What would make the embedded MPI look for its parts in vain is set in the submitting shell.
    leaked = slurm_cluster.environ | {"OPAL_PREFIX": "/nowhere", "PMIX_PREFIX": "/nowhere"}
    seen = run(slurm_cluster, folder, plan, **leaked)
    assert [rank["size"] for rank in seen] == [3, 3, 3]
    assert seen[0]["everybody"] == [[0, "n1"], [1, "n2"], [2, "n3"]]
    assert {rank["libmpi"] for rank in seen} == {plan.libmpi}


def test_srun_is_taken_where_it_speaks_with_the_mpi(
    slurm_cluster: DevCluster, folder: Path
) -> None:
    assert planned(slurm_cluster, folder, LOOK, "resources.ranks=2").launcher == "srun"
    without = slurm_cluster.environ | {"PATH": "/nowhere"}
    text = "name: demo\ncommand: [true]\nresources: {nodes: 2}\n"
    plan = read_request("job.yaml", [], without, text=text, inside=True)
    assert plan.launcher == "openmpi5", "the embedded one is found beside this Python"


def test_srun_speaks_what_the_job_names(slurm_cluster: DevCluster, folder: Path) -> None:
    report = examine(slurm_cluster.environ, start_ranks=False)
    (srun,) = [seen for seen in report.launchers if seen.name == "srun"]
    assert {"none", "pmi2", "pmix"} <= set(srun.speaks)
    assert report.slurm is not None
    assert (report.slurm.version, report.slurm.site) == (srun.version, "devcluster")
    assert (report.chosen.scheduler, report.chosen.launcher) == ("slurm", "srun")
    versioned = next(name for name in srun.speaks if name.startswith("pmix_v"))
    resources = "resources={nodes: 2, ranks_per_node: 1, cpus_per_rank: 1}"
    plan = planned(slurm_cluster, folder, WORLD, resources, f"slurm.mpi={versioned}")
    assert f"--mpi={versioned}" in plan.argv
    assert [rank["size"] for rank in run(slurm_cluster, folder, plan)] == [2, 2]


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_values_arrive_byte_for_byte(
    slurm_cluster: DevCluster, folder: Path, launcher: str
) -> None:
    odd = [
        "a b",
        "it's",
        "$(touch hit)",
        "two\nlines",
        "a,b;c=d",
        "é→",
        "",
        "\\",
        "{run_dir}",
        "%j",
    ]
    plan = planned(
        slurm_cluster,
        folder,
        LOOK,
        "resources={nodes: 2, cpus_per_rank: 1}",
        f"launcher={launcher}",
        *(f"environment.variables.ODD_{n}={json.dumps(v)}" for n, v in enumerate(odd)),
        arguments=odd,
    )
    for rank in run(slurm_cluster, folder, plan):
        assert rank["arguments"] == odd
        assert [rank["environment"][f"ODD_{number}"] for number in range(len(odd))] == odd
    assert not list(folder.rglob("hit"))


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_submitted_inside_of_another_job_it_is_a_job_of_its_own(
    slurm_cluster: DevCluster, folder: Path, launcher: str
) -> None:
    """By a step of another job, whose bindings, tasks and options would be taken for this one's."""
    resources = "resources={nodes: 2, ranks_per_node: 2}"
    plan = planned(slurm_cluster, folder, LOOK, resources, f"launcher={launcher}")
    plan = fill(plan, run_dir=str(folder / "run"), output=str(folder / "out.log"), after="")
    (folder / "batch.sh").write_text(plan.script)
    outer = folder / "outer.sh"
    outer.write_text(
        "#!/bin/bash\nsrun -n1 --cpu-bind=map_cpu:0 --distribution=cyclic --overcommit "
        # As in a job that has GPUs, of which there are none here.
        f"env SLURM_GPUS_PER_TASK=1 sbatch --wait {shlex.quote(str(folder / 'batch.sh'))}\n"
    )
    log = folder / "outer.log"
    options = ("--nodes=1", "--array=3", "--mem-per-cpu=10", "--threads-per-core=1")
    job = slurm_cluster.sbatch(*options, f"--output={log}", outer, cwd=Path("/"))
    ended = slurm_cluster.wait_until(f"{job}_3", timeout=120)
    assert ended["JobState"] == "COMPLETED", log.read_text()
    seen = [json.loads(file.read_text()) for file in sorted(folder.glob("[0-9]*.json"))]
    hosts = [rank["host"] for rank in seen]
    assert hosts[0] == hosts[1] != hosts[2] == hosts[3]
    if CORES:
        for one, other in (seen[:2], seen[2:]):
            assert len(one["cpus"]) == len(other["cpus"]) == 1
            assert one["cpus"] != other["cpus"]
    for rank in seen:
        assert rank["environment"]["SLURM_JOB_ID"] != str(job)
        for name in ("ARRAY_TASK_ID", "MEM_PER_CPU", "THREADS_PER_CORE", "GPUS_PER_TASK"):
            assert f"SLURM_{name}" not in rank["environment"]


def test_slurm_reads_the_directives_as_they_were_meant(
    slurm_cluster: DevCluster, folder: Path
) -> None:
    plan = planned(slurm_cluster, folder, LOOK, "resources={nodes: 2, memory: 100M, time: 1:30:00}")
    plan = fill(plan, run_dir=str(folder / "run"), output=str(folder / "a b#.log"), after="")
    assert plan.slurm is not None
    (folder / "batch.sh").write_text(plan.script)
    job = slurm_cluster.sbatch("--hold", folder / "batch.sh", cwd=Path("/"))
    shown = slurm_cluster.scontrol("show", "job", str(job))
    assert f"WorkDir={folder}\n" in shown
    assert f"StdOut={folder}/a b#.log\n" in shown
    for part in ("JobName=demo", "Requeue=0", "NumNodes=2", "TimeLimit=01:30:00", "Partition=low"):
        assert part in shown
    # The same words as arguments, as `submit` gives them, mean the same.
    other = slurm_cluster.sbatch("--hold", *plan.slurm.options, folder / "batch.sh", cwd=Path("/"))
    again = slurm_cluster.scontrol("show", "job", str(other))
    assert [line for line in again.splitlines() if "Dir=" in line or "Std" in line] == [
        line for line in shown.splitlines() if "Dir=" in line or "Std" in line
    ]
