"""The MPIs that tools/mpis.sh got, and hosts to start ranks on. What is not there is skipped by
name, with the reason."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.launchers.hosts import TOP, Hosts, make_hosts
from tests.launchers.jobs import Mpi, cores_here

_ENVIRON = dict(os.environ)  # the user's cache: during the tests the variable names another


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder starts launchers."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.launchers)


@pytest.fixture(scope="session")
def mpi_prefix() -> Callable[[str], Path]:
    """mpi_prefix("openmpi4"): the folder of that MPI, with bin/ and lib/ below it.

    There are openmpi4, openmpi5, mpich (5), mpich4 and intelmpi. Ranks are this environment's
    Python with MPI4PY_LIBMPI, which a plan sets.
    """
    return _folder_of


@pytest.fixture(scope="session")
def debian_mpi() -> list[str]:
    """The words before a command that make it see Debian's Open MPI as if it were installed.

    Its files are laid over /usr and /etc in a mount namespace of that command's own, which ends
    with it: nothing is mounted anywhere else.
    """
    if os.geteuid() != 0:
        pytest.skip("only root may lay Debian's Open MPI over /usr")
    folder = _folder_of("debian")
    mount = "mount -t overlay clusterseg -o ro,lowerdir={0}{1}:{1} {1}"
    script = " && ".join(
        [*(mount.format(folder, place) for place in ("/usr", "/etc")), 'exec "$@"']
    )
    command = ["unshare", "--mount", "sh", "-c", script, "sh"]
    tried = subprocess.run(
        [*command, "/usr/bin/mpirun", "--version"], capture_output=True, text=True, check=False
    )
    if tried.returncode:
        pytest.skip(f"Debian's Open MPI can't be laid over /usr: {tried.stderr.strip()}")
    return command


@pytest.fixture
def hosts(tmp_path: Path) -> Callable[..., Hosts]:
    """hosts(2): n1 and n2, which are this machine under other names (tests/launchers/hosts.py)."""

    def make(count: int, environ: Mapping[str, str] = {}) -> Hosts:
        try:
            return make_hosts(count, tmp_path, environ)
        except OSError as why:
            pytest.skip(str(why))

    return make


# Each with how its library begins to say what it is.
_MPIS = {
    "openmpi4": "Open MPI v4.1.8",
    "openmpi5": "Open MPI v5.0.11",
    "debian": "Open MPI v4",
    "mpich": "MPICH Version:      5.0.2",
    "intelmpi": "Intel(R) MPI Library 2021.18",
    "mpich4": "MPICH Version:      4.3.2",
}


@pytest.fixture(params=[name for name in _MPIS if name != "mpich4"])
def mpi(request: pytest.FixtureRequest) -> Mpi:
    """Each MPI that there is, one after the other. The older MPICH is for tests that ask for it:
    @pytest.mark.parametrize("mpi", ["mpich4"], indirect=True)."""
    name = request.param
    if name == "debian":
        under = request.getfixturevalue("debian_mpi")
        return Mpi(name, "openmpi4", _MPIS[name], "/usr/bin", under)
    return Mpi(name, name.replace("mpich4", "mpich"), _MPIS[name], str(_folder_of(name) / "bin"))


@pytest.fixture(autouse=True)
def _two_cores() -> None:
    if len(cores_here()) < 2:
        pytest.skip("these tests start two ranks, with a core each, and there is one core")


def _folder_of(name: str) -> Path:
    asked = subprocess.run(
        [str(TOP / "tools" / "mpis.sh"), "path", name],
        env=_ENVIRON,
        capture_output=True,
        text=True,
        check=False,
    )
    if asked.returncode == 1:
        pytest.skip(f"the MPI {name} is not there: run tools/mpis.sh")
    assert asked.returncode == 0, asked.stderr
    return Path(asked.stdout.strip())
