"""What a process must be to be a rank: clear errors for everything else."""

from __future__ import annotations

from pathlib import Path

import pytest

from clusterseg.errors import ClustersegError
from clusterseg.runs.rank_files import RankPlace
from clusterseg.train.communicator import connect
from clusterseg.train.job import read_job
from tests.train.runs import Run, job


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path / "run", job(tmp_path / "data"), ranks=2, communicator="mpi")
    run.claim()
    return run


def variables(rank: int = 1, size: int = 2) -> dict[str, str]:
    return {
        "CLUSTERSEG_ATTEMPT": "0",
        "OMPI_COMM_WORLD_RANK": str(rank),
        "OMPI_COMM_WORLD_SIZE": str(size),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(rank),
    }


def test_a_rank_reads_its_job_and_its_place(run: Run) -> None:
    found = read_job(run.root, variables())
    assert (found.place.rank, found.place.world_size, found.communicator) == (1, 2, "mpi")
    assert found.train.batch_size == 4 and found.claim == run.claims[-1]
    assert found.stop_file == run.paths.stop_file(0)
    other = read_job(run.root, {**variables(), "CLUSTERSEG_STOP_FILE": "/elsewhere"})
    assert other.stop_file == Path("/elsewhere")


def test_without_an_attempt_it_is_told_to_use_submit(run: Run) -> None:
    with pytest.raises(ClustersegError, match="CLUSTERSEG_ATTEMPT is not set") as caught:
        read_job(run.root, {})
    assert "submit" in (caught.value.help or "")


@pytest.mark.parametrize("environ", [variables(0, 1), variables(1, 3), {"CLUSTERSEG_ATTEMPT": "0"}])
def test_another_number_of_ranks_than_claimed_is_refused(run: Run, environ: dict[str, str]) -> None:
    with pytest.raises(ClustersegError, match="was claimed for 2") as caught:
        read_job(run.root, environ)
    assert caught.value.code == "world-size"


def test_a_folder_that_is_no_run_and_a_damaged_plan_are_named(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ClustersegError, match=r"claim\.json cannot be read"):
        read_job(tmp_path, variables())
    run.paths.submission(0).plan.write_text("{")
    with pytest.raises(ClustersegError, match=r"plan\.json is damaged"):
        read_job(run.root, variables())


def test_a_command_job_is_no_training(run: Run) -> None:
    del run.spec["train"]
    run.spec["command"] = ["true"]
    run.claim()
    with pytest.raises(ClustersegError, match="has `command:`"):
        read_job(run.root, {**variables(), "CLUSTERSEG_ATTEMPT": "1"})


def test_one_rank_alone_is_no_world_of_two() -> None:
    place = RankPlace(rank=0, world_size=2, local_rank=0)
    with pytest.raises(ClustersegError, match="claimed for 2 ranks") as caught:
        connect("solo", place, 2)
    assert "MPI4PY_LIBMPI" in (caught.value.help or "")
    alone = RankPlace(rank=0, world_size=1, local_rank=0)
    assert connect("solo", alone, 1).size == 1
