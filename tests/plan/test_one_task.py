"""What a job of one rank's work asks Slurm for."""

from __future__ import annotations

import shlex
import subprocess
from typing import Any

import msgspec
import pytest

from clusterseg.plan.model import Geometry, Plan, SlurmPlan
from clusterseg.plan.one_task import one_task_options, one_task_setup
from clusterseg.spec.model import JobSpec


def plan(spec: dict[str, Any], slurm: SlurmPlan | None = None, time: int | None = None) -> Plan:
    return Plan(
        name="test", scheduler="slurm", launcher="srun", launcher_version="", mpirun="",
        libmpi=None, hosts={"{host0}": 4, "{host1}": 2}, ranks=6, argv=(), environment={}, unset=(),
        script="", geometry=Geometry(
            nodes=2, ranks=6, ranks_per_node=None, cpus_per_rank=3,
            hosts={"{host0}": 4, "{host1}": 2},
        ),
        hostfile=None, communicator="mpi", threads=3, program=(), directory="/", time_limit=time,
        warnings=(), spec=msgspec.convert({"name": "test", **spec}, JobSpec), slurm=slurm,
    )  # fmt: skip


def slurm(*options: str, **more: Any) -> SlurmPlan:
    return SlurmPlan(
        options=options, site=None, metadata_delay=0.0, notice=None, accounting=None,
        requeue=True, **more,
    )  # fmt: skip


def test_it_runs_where_the_run_does_with_the_share_of_one_rank() -> None:
    given = slurm(
        "--job-name=x", "--partition=gpu", "--account=abc=d", "--nodes=2", "--ntasks-per-node=4",
        "--mem=64G", "--time=12:00:00", "--signal=B:USR1@120", "--requeue", "--array=0-7",
        "--dependency=afterany:7", "--output=x", "--gres=gpu:4",
    )  # fmt: skip
    assert one_task_options(plan({"resources": {"memory": 64 << 30}}, given)) == {
        "partition": "gpu",
        "account": "abc=d",
        "time": "12:00:00",
        "mem": "16384M",
        "cpus-per-task": "3",
    }


@pytest.mark.parametrize(
    ("asked", "name", "value"),
    [
        ("--gres=gpu:4", "gres", "gpu:1"),
        ("--gres=gpu:v100:4", "gres", "gpu:v100:1"),
        ("--gpus-per-node=4", "gpus-per-node", "1"),
        ("--gpus-per-task=a100:2", "gpus-per-node", "a100:1"),
    ],
)
def test_where_ranks_have_accelerators_it_has_one(asked: str, name: str, value: str) -> None:
    spec = {"resources": {"accelerator": "cuda"}}
    assert one_task_options(plan(spec, slurm(asked))) == {"cpus-per-task": "3", name: value}
    assert one_task_options(plan({}, slurm(asked))) == {"cpus-per-task": "3"}


def test_the_plan_of_a_local_run_knows_what_job_yaml_says() -> None:
    spec = {"slurm": {"partition": "low", "qos": "q", "account": "a", "constraint": "c"}}
    assert one_task_options(plan(spec, time=61)) == {
        "partition": "low",
        "qos": "q",
        "account": "a",
        "constraint": "c",
        "time": "2",
        "cpus-per-task": "3",
    }
    assert one_task_options(plan({})) == {"cpus-per-task": "3"}


@pytest.mark.parametrize("value", ["a b", "$(touch x)", "it's", "a\nb", "`x`", ";#"])
def test_values_are_no_code_and_the_site_comes_first(value: str) -> None:
    environment = {"modules": ["own"], "setup": ["echo own"], "variables": {"VALUE": value}}
    lines = one_task_setup(
        plan({"environment": environment}, slurm(modules=("site",), setup=("echo site\n",)))
    )
    assert lines[-4:] == ["module load site", "module load own", "echo site", "echo own"]
    script = "\n".join(["module() { :; }", *lines, 'printf %s "$VALUE"'])
    said = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert said.stdout == f"site\nown\n{value}"
    assert "export OMP_NUM_THREADS=3" in lines
    assert shlex.split(lines[1])[0] == "export"
