"""Ranks that the real launchers put where they were planned to be, and elsewhere."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from clusterseg.cli.status_view import status_lines, status_view
from clusterseg.cluster.look import look
from clusterseg.runs.paths import RunPaths
from clusterseg.shipped import shipped_folder
from tests.devcluster import DevCluster
from tests.supervise.runs import attempt, end_of, finish, make_run, supervise
from tests.supervise.slurm_runs import SlurmRun

pytestmark = pytest.mark.slow

two_cores = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="two ranks need two cores to be bound to"
)
SHARED = "ranks 0 and 1 on {} share core {}; each was to have its own"


def redefine(monkeypatch: pytest.MonkeyPatch, config: Path, name: str, **lines: str) -> None:
    """A user's own definition of a launcher: the shipped one, with other flags."""
    text = (shipped_folder("launchers") / f"{name}.yaml").read_text()
    for meaning, flags in lines.items():
        old = next(line for line in text.splitlines() if line.startswith(f"  {meaning}: "))
        text = text.replace(old, f"  {meaning}: {flags}")
    (config / "launchers").mkdir(parents=True)
    (config / "launchers" / f"{name}.yaml").write_text(text)
    monkeypatch.setenv("CLUSTERSEG_CONFIG", str(config))


def bind_to_one_core(monkeypatch: pytest.MonkeyPatch, config: Path) -> int:
    """A definition whose author has left an option from his tests in it; returns the core."""
    core = min(os.sched_getaffinity(0))
    flags = (
        "[--bind-to, 'core:overload-allowed', --map-by, slot, --oversubscribe,"
        f" --prtemca, hwloc_default_cpu_list, '{core}']"
    )
    redefine(monkeypatch, config, "openmpi5", bind_core=flags)
    return core


def placement_of(run: RunPaths) -> Mapping[str, Any]:
    own = run.attempt(0)
    seen = [file.read_text() for file in (own.supervisor_log, *sorted(own.ranks.glob("*")))]
    assert own.placement.exists(), "\n".join(seen)
    return json.loads(own.placement.read_bytes())  # type: ignore[no-any-return]


def page(run: RunPaths) -> str:
    """What `status` prints."""
    return "\n".join(status_lines(status_view(look(run))))


@two_cores
@pytest.mark.parametrize("steps", ["1", "20"])
def test_ranks_as_planned_are_not_talked_about(tmp_path: Path, steps: str) -> None:
    run = make_run(tmp_path, "--steps", steps, launcher="openmpi5", placement={"verify": "fail"})
    code, said = supervise(run)
    assert code == 0, said
    assert "placement" not in said
    assert (placement_of(run)["problems"], placement_of(run)["ranks"]) == ([], [])
    assert "placement     as planned" in page(run)


@two_cores
@pytest.mark.parametrize("steps", ["1", "20"])  # also of ranks that end before they are looked at
def test_ranks_on_one_core_are_told_of_once_an_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: str
) -> None:
    core = bind_to_one_core(monkeypatch, tmp_path / "config")
    fault = ("--steps", steps, "--mute", "--fail", f"exit3:1:{steps}:1")
    run = make_run(tmp_path, *fault, launcher="openmpi5")
    code, said = supervise(run)
    assert code == 0, said
    problem = SHARED.format(os.uname().nodename.split(".")[0], core)
    assert said.count(f"clusterseg: placement: {problem}") == 2  # of an attempt and the next one
    for number in (0, 1):
        log = run.attempt(number).supervisor_log.read_text()
        assert log.count(f"placement: {problem}") == 1
    assert (placement_of(run)["problems"], placement_of(run)["ranks"]) == ([problem], [0, 1])
    assert "placement     NOT as planned" in page(run)
    assert f"0-1:{core}!" in page(run)
    assert f"  ! {problem}" in page(run)


@two_cores
@pytest.mark.parametrize("steps", ["1", "10000"])
def test_ranks_on_one_core_end_a_run_that_wants_it_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: str
) -> None:
    core = bind_to_one_core(monkeypatch, tmp_path / "config")
    run = make_run(tmp_path, "--steps", steps, launcher="openmpi5", placement={"verify": "fail"})
    code, said = supervise(run)
    assert code == 1, said
    problem = SHARED.format(os.uname().nodename.split(".")[0], core)
    end = end_of(run, 0)
    assert (end["cause"], end["failed_rank"]) == ("crash", None)
    assert end["error"].startswith(f"placement: {problem}")
    # The launch would end so again.
    assert sorted(path.name for path in run.attempts.iterdir()) == ["000", "001"]


@two_cores
@pytest.mark.parametrize("which", [0, 1])
def test_a_rank_on_a_core_that_the_job_does_not_have_is_told_of(tmp_path: Path, which: int) -> None:
    """Open MPI binds to the first core of the host, whatever its own affinity is."""
    first, own = min(os.sched_getaffinity(0)), sorted(os.sched_getaffinity(0))[which]
    if first != 0:
        pytest.skip("the first core of this host is not to be had")
    run = make_run(tmp_path, ranks=1, launcher="openmpi5", resources={"cpus_per_rank": 1})
    with attempt(run, under=["taskset", "-c", str(own)]) as process:
        code, said = finish(process)
    assert code == 0, said
    problem = f"runs on core {first}, but this job has core {own} there"
    assert (problem in said) == (own != first), said
    assert placement_of(run)["ranks"] == ([0] if own != first else [])


@two_cores
def test_verify_off_looks_at_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bind_to_one_core(monkeypatch, tmp_path / "config")
    run = make_run(tmp_path, launcher="openmpi5", placement={"verify": "off"})
    code, said = supervise(run)
    assert (code, "placement" in said) == (0, False), said
    assert not run.attempt(0).placement.exists()
    assert "placement     not compared with the plan" in page(run)


@pytest.mark.slurm
@pytest.mark.parametrize("verify", ["warn", "fail"])
def test_an_srun_that_puts_all_ranks_on_one_node_is_found(
    slurm_cluster: DevCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verify: str
) -> None:
    redefine(
        monkeypatch,
        tmp_path / "config",
        "srun",
        nodes='["--nodes=1", --overcommit]',
        per_node='["--ntasks-per-node=2"]',
    )
    job = SlurmRun.submit(
        slurm_cluster, tmp_path, "--steps", "60", placement={"verify": verify}, restart={"crash": 0}
    )
    end = job.until_end(0)
    said = "the ranks run on {n1: 2}, the plan says {n1: 1, n2: 1}"
    assert said in placement_of(job.run)["problems"], job.story()
    if verify == "fail":
        assert end["cause"] == "crash"
        assert end["error"].startswith(f"placement: {said}")
    else:
        assert end["cause"] == "done"
    status = job.status()["placement"]
    assert said in status["problems"]
    assert status["as_planned"] is False


@pytest.mark.slurm
@pytest.mark.parametrize("launcher", ["srun", "openmpi5"])
@pytest.mark.parametrize("per_node", [1, 2])
def test_a_job_of_slurm_is_as_planned(
    slurm_cluster: DevCluster, tmp_path: Path, launcher: str, per_node: int
) -> None:
    job = SlurmRun.submit(
        slurm_cluster,
        tmp_path,
        launcher=launcher,
        per_node=per_node,
        placement={"verify": "fail"},
    )
    job.until_done()
    assert placement_of(job.run)["problems"] == [], job.story()
    hosts = job.status()["placement"]["hosts"]
    assert [len(host["ranks"]) for host in hosts] == [per_node, per_node]
