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
from clusterseg.submit.two_ranks import ask_horovod, ask_mpi4py

DEFINITIONS = read_definitions({"CLUSTERSEG_CONFIG": "/nowhere"})
MPIS = ("openmpi4", "openmpi5", "mpich", "mpich4", "intelmpi")

Prefix = Callable[[str], Path]

ASKS_DEBIANS = """
import json, os
from clusterseg.cluster.mpi import find_pairs
from clusterseg.submit.launchers import read_definitions
from clusterseg.submit.two_ranks import ask_mpi4py
known = read_definitions(os.environ)
pair = next(one for one in find_pairs(known, os.environ) if one.name == "openmpi4")
found = ask_mpi4py(known["openmpi4"], pair, os.environ)
print(json.dumps([pair.program, pair.version, found.library, found.problem]))
"""


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
def test_doctor_proves_a_pair(
    mpi_prefix: Prefix, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clusterseg.submit.doctor._questions", lambda _: [ask_mpi4py])
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
    (loaded,) = seen.two_ranks.loaded
    assert Path(loaded).samefile(seen.libmpi or "")
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
    assert found.loaded == (pair_of(mpi_prefix(library)).libmpi,)


@pytest.mark.horovod
@pytest.mark.slow
def test_horovod_with_another_mpi_than_its_own_is_found_out(mpi_prefix: Prefix) -> None:
    """It is bound to the MPI that it was built with, whatever the launcher and mpi4py are."""
    prefix = mpi_prefix("mpich")
    pair = pair_of(prefix)
    found = ask_horovod(DEFINITIONS[pair.name], pair, environ_of(prefix))
    assert "a rank loads two MPIs" in (found.problem or "")
    assert str(pair.libmpi) in (found.problem or "")
    assert str(Path(sys.prefix) / "lib" / "libmpi.so.40") in (found.problem or "")


def test_debians_open_mpi_is_found_and_proved(debian_mpi: list[str]) -> None:
    """It calls itself OpenRTE, and its library lies in a folder of its architecture."""
    command = [*debian_mpi, sys.executable, "-c", ASKS_DEBIANS]
    said = subprocess.run(command, env=environ_of(Path("/usr")), capture_output=True, check=True)
    program, version, library, problem = json.loads(said.stdout)
    assert program.startswith("/usr/bin/")
    assert version.startswith("4.1.")
    assert (library, problem) == (f"Open MPI v{version}", None)


@pytest.fixture(autouse=True)
def _nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The folders of the questions go with them."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    yield
    assert not list(tmp_path.glob("clusterseg-doctor-*"))
