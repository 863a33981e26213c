"""MPICH and Intel MPI in a job of Slurm: by their own mpiexec, and as a step that srun starts."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from clusterseg.runs.paths import RunPaths
from tests.devcluster import DevCluster
from tests.launchers.jobs import PROGRAM
from tests.launchers.test_geometry import AS_PLANNED, of_all
from tests.supervise.slurm_runs import SlurmRun

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

LIBRARY = {"mpich": "MPICH Version:      5.0.2", "intelmpi": "Intel(R) MPI Library 2021.18"}


@pytest.mark.parametrize("counts", [(2, 2), (2, 1)], ids=["equal", "unequal"])
@pytest.mark.parametrize(
    ("name", "by"),
    [("mpich", "mpiexec"), ("mpich", "srun"), ("intelmpi", "mpiexec"), ("intelmpi", "srun")],
)
def test_ranks_are_one_job_on_the_nodes(
    name: str, by: str, counts: Sequence[int], request: pytest.FixtureRequest
) -> None:
    tmp_path: Path = request.getfixturevalue("tmp_path")
    slurm_cluster: DevCluster = request.getfixturevalue("slurm_cluster")
    mpi_prefix: Callable[[str], Path] = request.getfixturevalue("mpi_prefix")
    reports = tmp_path / "ranks"
    reports.mkdir()
    launcher = "srun" if by == "srun" else name
    job = {
        "name": "t",
        "command": [sys.executable, str(PROGRAM), str(reports), "report", "a  b"],
        "resources": {"nodes": 2, "ranks": sum(counts), "cpus_per_rank": 1, "time": "5:00"},
        "slurm": {"partition": "low"},
        "scheduler": "slurm",
        "launcher": launcher,
        "restart": {"crash": 0},
        "environment": {"variables": {"TOLD_0": "$(id)\n'x'"}},
    }
    file = tmp_path / "job.yaml"
    file.write_text(json.dumps(job))
    path = os.pathsep.join([str(mpi_prefix(name) / "bin"), slurm_cluster.environ["PATH"]])
    answer = json.loads(
        slurm_cluster.run(
            "clusterseg", "submit", "--json", file, cwd=tmp_path, env={"PATH": path}
        ).stdout
    )
    run = SlurmRun(slurm_cluster, RunPaths(Path(answer["run_dir"])), answer["job_id"])
    end = run.until_end(0)
    noted = run.run.attempt(0).supervisor_log.read_text()
    assert end["cause"] == "done", noted
    line = run.claim(0)["argv"]
    assert Path(line[0]).name == by
    if by == "srun":
        assert "--mpi=pmi2" in line
    ranks = [json.loads((reports / f"{n}.json").read_text()) for n in range(sum(counts))]
    assert_one_job(ranks, counts, LIBRARY[name])
    assert AS_PLANNED in noted
    for rank in ranks:
        assert bytes.fromhex(rank["environment"]["TOLD_0"]) == b"$(id)\n'x'"
        assert [bytes.fromhex(word) for word in rank["argv"]] == [b"a  b"]


def assert_one_job(ranks: list[dict[str, Any]], counts: Sequence[int], library: str) -> None:
    assert of_all(ranks, "rank") == of_all(ranks, "told_rank") == list(range(sum(counts)))
    assert set(of_all(ranks, "size")) == {sum(counts)}
    assert set(of_all(ranks, "sum")) == {sum(range(sum(counts)))}
    assert all(seen.startswith(library) for seen in of_all(ranks, "library"))
    assert sorted(Counter(of_all(ranks, "host")).values()) == sorted(counts)
    assert of_all(ranks, "local_rank") == [local for count in counts for local in range(count)]
