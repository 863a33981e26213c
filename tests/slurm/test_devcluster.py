"""The development cluster: comes up, goes away without a trace, and is a real Slurm."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.devcluster import DevCluster

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


def test_a_batch_job_runs_its_tasks_on_nodes_of_their_own(
    slurm_cluster: DevCluster, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    job = slurm_cluster.sbatch("-N4", "-n8", "-o", output, "--wrap", "srun hostname")
    slurm_cluster.wait_until(job, "COMPLETED")
    assert sorted(output.read_text().split()) == ["n1", "n1", "n2", "n2", "n3", "n3", "n4", "n4"]
