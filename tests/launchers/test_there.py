"""The MPIs that the other tests start are those that they are taken for."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.launchers.hosts import TOP, Hosts

SAYS = {
    "openmpi4": "mpirun (Open MPI) 4.1.8",
    "openmpi5": "mpirun (Open MPI) 5.0.11",
    "mpich": "Version:                                 5.0.2",
    "mpich4": "Version:                                 4.3.2",
    "intelmpi": "Intel(R) MPI Library for Linux* OS, Version 2021.18",
}


@pytest.mark.parametrize("name", SAYS)
def test_an_mpi_is_the_pinned_one_wherever_its_folder_is(
    name: str, mpi_prefix: Callable[[str], Path]
) -> None:
    program = "mpirun" if name.startswith("openmpi") else "mpiexec"
    asked = [str(mpi_prefix(name) / "bin" / program), "--version"]
    assert SAYS[name] in subprocess.run(asked, capture_output=True, text=True, check=False).stdout
    assert (mpi_prefix(name) / "lib" / "libmpi.so").exists()


def test_debians_mpi_is_seen_by_its_command_only(debian_mpi: list[str]) -> None:
    mounts = Path("/proc/mounts").read_text()
    seen = subprocess.run(
        [*debian_mpi, "/usr/bin/mpirun", "--version"], capture_output=True, text=True, check=True
    )
    assert "(OpenRTE) 4" in seen.stdout or "(Open MPI) 4" in seen.stdout
    assert Path("/proc/mounts").read_text() == mounts


def test_a_host_has_its_name_and_a_login_of_its_own(
    hosts: Callable[..., Hosts], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOT_TO_BE_SEEN", "there")
    two = hosts(2, {"SEEN": "a  b"})
    assert two.names == ("n1", "n2")
    line = 'echo "$(uname -n) $SEEN $NOT_TO_BE_SEEN" two  words'
    said = subprocess.run(
        [str(two.agent), "-x", "n2", line], capture_output=True, text=True, check=True
    )
    assert said.stdout == "n2 a  b  two words\n"


def test_what_can_not_be_had_is_named_and_no_failure(tmp_path: Path) -> None:
    """No network, and nothing fetched before. What a killed one left is swept away."""
    left = tmp_path / "clusterseg" / "mpis" / ".mpich.4194305"  # above the highest process id
    left.mkdir(parents=True)
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path),
        "UV_OFFLINE": "1",
        "UV_NO_CACHE": "1",
    }
    script = str(TOP / "tools" / "mpis.sh")
    done = subprocess.run(
        [script, "mpich"], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Not there: the MPI mpich; the tests that need it are skipped by name" in done.stdout
    assert list(left.parent.iterdir()) == []
    asked = subprocess.run([script, "path", "mpich"], env=environ, check=False, capture_output=True)
    assert asked.returncode == 1
