"""What holds for every test: a clean environment, its own folder for runs, nothing left running."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.horovod_build import why_no_horovod
from tests.processes import Descendants, stand_guard

# An outer job's variables would steer the code under test (and a test's own would leak out).
_FOREIGN = ("CLUSTERSEG_", "SLURM_", "SBATCH_", "OMPI_", "PMIX_", "PRTE_", "PMI_", "HOROVOD_")
_FOREIGN_NAMES = ("MPI4PY_LIBMPI", "OMP_NUM_THREADS", "NO_COLOR", "FORCE_COLOR", "TF_CONFIG")

_descendants = Descendants()


def pytest_configure(config: pytest.Config) -> None:
    """Cleans the environment before any test module is imported."""
    for name in list(os.environ):
        if name.startswith(_FOREIGN) or name in _FOREIGN_NAMES:
            del os.environ[name]
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    stand_guard()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need Horovod are skipped, with the reason, where it is not built."""
    reason = why_no_horovod()
    for item in items:
        if reason and item.get_closest_marker("horovod"):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session", autouse=True)
def _nothing_left_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fails the session if a process that a test started outlives it; ends it by its id."""
    base = tmp_path_factory.mktemp("session")
    os.environ["CLUSTERSEG_RUNS"] = str(base / "runs")
    os.environ["CLUSTERSEG_CONFIG"] = str(base / "config")
    yield
    left = _descendants.end_all(patience=5)
    if left:
        pytest.fail("processes left behind by tests:\n" + "\n".join(left), pytrace=False)


@pytest.fixture(autouse=True)
def _who_started_what(request: pytest.FixtureRequest) -> Iterator[None]:
    """Notes which test started a process, so that one left behind can be traced to it."""
    yield
    _descendants.note(request.node.nodeid)


@pytest.fixture
def runs_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for this test's runs, also for programs that it starts."""
    folder = tmp_path / "runs"
    monkeypatch.setenv("CLUSTERSEG_RUNS", str(folder))
    return folder
