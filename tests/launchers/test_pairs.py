"""Which mpirun and which libmpi agree is found out by two ranks, on the real ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from clusterseg.cluster.agreement import Agreement
from clusterseg.cluster.mpi import look_around
from clusterseg.plan.model import LauncherPair
from clusterseg.submit.doctor import examine
from clusterseg.submit.launchers import read_definitions
from clusterseg.submit.two_ranks import ask_mpi4py

DEFINITIONS = read_definitions({"CLUSTERSEG_CONFIG": "/nowhere"})
MPIS = ("openmpi4", "openmpi5", "mpich", "mpich4", "intelmpi")

Prefix = Callable[[str], Path]


def environ_of(prefix: Path) -> dict[str, str]:
    """That MPI comes first on PATH. (Open MPI 4 does not start even here without an ssh there.)"""
    path = f"{prefix / 'bin'}:/usr/bin:/bin"
    outer = {name for name in os.environ if name.startswith("SLURM_")}
    kept = {name: value for name, value in os.environ.items() if name not in outer}
    return {**kept, "PATH": path, "CLUSTERSEG_CONFIG": "/nowhere"}


def pair_of(prefix: Path) -> LauncherPair:
    seen = look_around(DEFINITIONS, environ_of(prefix))
    return next(one.pair for one in seen if one.pair is not None)


def ask(launcher: Path, library: Path) -> Agreement:
    """Two ranks that one MPI's launcher starts, on another one's library."""
    pair = replace(pair_of(launcher), libmpi=pair_of(library).libmpi)
    return ask_mpi4py(DEFINITIONS[pair.name], pair, environ_of(launcher))


@pytest.mark.parametrize("name", MPIS)
def test_doctor_proves_a_pair(mpi_prefix: Prefix, name: str) -> None:
    prefix = mpi_prefix(name)
    report = examine(environ_of(prefix), start_ranks=True)
    assert report.works
    own = [seen for seen in report.launchers if Path(seen.program).parent == prefix / "bin"]
    (seen,) = own  # once, whatever names it has
    assert seen.name == name.removesuffix("4" if name == "mpich4" else "")
    assert seen.two_ranks is not None
    assert (seen.two_ranks.size, seen.two_ranks.problem) == (2, None)
    version = seen.version if name != "intelmpi" else seen.version.rpartition(".")[0]
    assert version in seen.two_ranks.library
    assert Path(seen.two_ranks.loaded).samefile(seen.libmpi or "")
    assert (report.chosen.launcher, report.chosen.program) == (seen.name, seen.program)
    assert report.chosen.why == "it is the first MPI that is found, on PATH"


@pytest.mark.parametrize("launcher", ["mpich", "mpich4", "intelmpi"])
def test_open_mpi_5_under_a_hydra_is_two_worlds_that_end_well(
    mpi_prefix: Prefix, launcher: str
) -> None:
    found = ask(mpi_prefix(launcher), mpi_prefix("openmpi5"))
    assert found.size == 1
    assert "each rank is alone, in a world of 1" in (found.problem or "")


@pytest.mark.parametrize("launcher", ["openmpi4", "openmpi5"])
def test_intels_ranks_under_open_mpi_are_two_worlds_that_end_well(
    mpi_prefix: Prefix, launcher: str
) -> None:
    found = ask(mpi_prefix(launcher), mpi_prefix("intelmpi"))
    assert found.size == 1
    assert "each rank is alone, in a world of 1" in (found.problem or "")


@pytest.mark.parametrize(
    ("launcher", "library"),
    [
        ("openmpi4", "mpich"),
        ("openmpi5", "mpich"),
        ("openmpi5", "openmpi4"),
        ("mpich", "openmpi4"),
        ("intelmpi", "openmpi4"),
    ],
)
def test_ranks_that_abort_are_told_with_what_they_say(
    mpi_prefix: Prefix, launcher: str, library: str
) -> None:
    found = ask(mpi_prefix(launcher), mpi_prefix(library))
    assert found.size is None
    assert "do not understand each other" in (found.problem or "")
    assert "it says: " in (found.problem or "")


@pytest.mark.parametrize(("launcher", "library"), [("mpich", "intelmpi"), ("intelmpi", "mpich")])
def test_what_only_looks_wrong_is_not_refused(
    mpi_prefix: Prefix, launcher: str, library: str
) -> None:
    """MPICH and Intel MPI have one ABI: by their names nobody could tell."""
    found = ask(mpi_prefix(launcher), mpi_prefix(library))
    assert (found.size, found.problem) == (2, None)
    assert found.loaded == pair_of(mpi_prefix(library)).libmpi


def test_debians_open_mpi_is_found_and_proved(debian_mpi: list[str]) -> None:
    """It calls itself OpenRTE, and its library lies in a folder of its architecture."""
    command = [*debian_mpi, str(Path(sys.executable).with_name("clusterseg")), "doctor", "--json"]
    said = subprocess.run(command, env=environ_of(Path("/usr")), capture_output=True, check=True)
    (seen,) = [
        one
        for one in json.loads(said.stdout)["launchers"]
        if one["name"] == "openmpi4" and one["program"].startswith("/usr/bin/")
    ]
    assert seen["version"].startswith("4.1.")
    assert seen["two_ranks"]["problem"] is None
    assert seen["two_ranks"]["library"] == f"Open MPI v{seen['version']}"


@pytest.fixture(autouse=True)
def _nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The folders of the questions go with them."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    yield
    assert not list(tmp_path.glob("clusterseg-doctor-*"))
