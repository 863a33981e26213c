"""Files of launchers that were killed: they keep no later one from coming up."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.launchers.jobs import Job, Mpi

# Process ids begin at 1 there, so that those of a launcher and its ranks are known.
_NUMBERED_ANEW = ("unshare", "--pid", "--fork", "--mount-proc")


@pytest.mark.parametrize("mpi", ["openmpi5"], indirect=True)
def test_a_launcher_comes_up_where_one_with_its_process_id_was_killed(
    mpi: Mpi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Open MPI 5 finds the file by which tools would find it, and takes it for a running one."""
    if os.geteuid() != 0:
        pytest.skip("only root may number processes anew")
    here = tmp_path / "tmp"
    for number in range(1, 1000):
        folder = here / f"ompi.{number}"
        folder.mkdir(parents=True)
        (folder / f"pmix.{os.uname().nodename}.tool.{number}").touch()
    left = set(here.iterdir())
    monkeypatch.setenv("TMPDIR", str(here))
    assert len(Job(replace(mpi, under=_NUMBERED_ANEW), tmp_path).done()) == 2
    assert set(here.iterdir()) == left  # and leaves nothing itself
