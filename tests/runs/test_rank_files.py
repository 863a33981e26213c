"""A rank's place from the launcher's variables, and its output file."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from clusterseg.errors import ClustersegError
from clusterseg.runs.rank_files import RankPlace, rank_from_environment

SLURM_BATCH = {"SLURM_PROCID": "0", "SLURM_NTASKS": "6", "SLURM_LOCALID": "0"}


@pytest.mark.parametrize(
    ("environ", "place"),
    [
        ({}, (0, 1, 0)),
        (
            {
                "OMPI_COMM_WORLD_RANK": "5",
                "OMPI_COMM_WORLD_SIZE": "6",
                "OMPI_COMM_WORLD_LOCAL_RANK": "1",
                "PMIX_RANK": "5",
                **SLURM_BATCH,
            },
            (5, 6, 1),
        ),
        ({"PMI_RANK": "3", "PMI_SIZE": "4", "MPI_LOCALRANKID": "2", **SLURM_BATCH}, (3, 4, 2)),
        ({"PMI_RANK": "3", "PMI_SIZE": "4", "SLURM_LOCALID": "1"}, (3, 4, 1)),
        (
            {"PMIX_RANK": "4", "SLURM_PROCID": "4", "SLURM_NTASKS": "6", "SLURM_LOCALID": "1"},
            (4, 6, 1),
        ),
        # `clusterseg ranks`, in a batch step of Slurm.
        (
            {
                "CLUSTERSEG_RANK": "1",
                "CLUSTERSEG_WORLD_SIZE": "2",
                "CLUSTERSEG_LOCAL_RANK": "1",
                **SLURM_BATCH,
            },
            (1, 2, 1),
        ),
        ({"SLURM_PROCID": "2", "SLURM_NTASKS": "3", "SLURM_LOCALID": "0"}, (2, 3, 0)),
    ],
)
def test_place(environ: dict[str, str], place: tuple[int, int, int]) -> None:
    rank, world_size, local_rank = place
    expected = RankPlace(rank=rank, world_size=world_size, local_rank=local_rank)
    assert rank_from_environment(environ) == expected


@pytest.mark.parametrize(
    "environ",
    [
        {"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "2"},
        {"OMPI_COMM_WORLD_RANK": "-1", "OMPI_COMM_WORLD_SIZE": "2"},
        {"PMI_RANK": "", "PMI_SIZE": "2"},
        {"PMI_RANK": "0", "PMI_SIZE": "two"},
    ],
)
def test_nonsense_is_refused(environ: dict[str, str]) -> None:
    with pytest.raises(ClustersegError):
        rank_from_environment(environ)


def test_output_goes_to_the_file_also_after_exec(tmp_path: Path) -> None:
    log = tmp_path / "00000.log"
    log.write_bytes(b"from before\n")
    script = (
        "import os, sys; from pathlib import Path\n"
        "from clusterseg.runs.rank_files import redirect_output\n"
        "os.umask(0); print('before')\n"
        "redirect_output(Path(sys.argv[1])); print('python', flush=True)\n"
        "os.execvp('sh', ['sh', '-c', 'echo child; echo error >&2'])"
    )
    process = subprocess.run(
        [sys.executable, "-c", script, str(log)], capture_output=True, text=True, check=True
    )
    assert process.stdout == "before\n"
    assert process.stderr == ""
    assert log.read_text() == "from before\npython\nchild\nerror\n"
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_output_never_follows_a_link(tmp_path: Path) -> None:
    target = tmp_path / "victim"
    target.write_bytes(b"")
    (tmp_path / "log").symlink_to(target)
    script = (
        "import sys; from pathlib import Path\n"
        "from clusterseg.runs.rank_files import redirect_output\n"
        "redirect_output(Path(sys.argv[1]))"
    )
    process = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "log")], capture_output=True, check=False
    )
    assert process.returncode == 1
    assert target.read_bytes() == b""
