"""What holds for every test: a clean environment, its own folder for runs, nothing left running."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import devcluster
from tests.devcluster import DevCluster
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
    _heed_signals()
    stand_guard()


def _heed_signals() -> None:
    """A shell that starts a job in the background has it ignore Ctrl-C, nohup the lost terminal;
    what the tests start would inherit that."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM):
        if signal.getsignal(number) is signal.SIG_IGN:
            ours = number == signal.SIGINT
            signal.signal(number, signal.default_int_handler if ours else signal.SIG_DFL)


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
    os.environ["XDG_CACHE_HOME"] = str(base / "cache")  # what is remembered of Slurm's answers
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


@pytest.fixture(scope="session")
def slurm_cluster() -> Iterator[DevCluster]:
    """A Slurm of 4 nodes with 2 cores, partitions low and high; preemption gives no notice."""
    yield from _shared_cluster("slurm", preempt_signal=False)


@pytest.fixture(scope="session")
def slurm_cluster_signal() -> Iterator[DevCluster]:
    """The same, where a preempted job gets the signal of its --signal option first."""
    yield from _shared_cluster("signal", preempt_signal=True)


@pytest.fixture
def make_devcluster() -> Iterator[Callable[..., DevCluster]]:
    """make_devcluster(nodes=2, accounting=True, conf=["low.GraceTime=5"]): one of your own."""
    names: list[str] = []

    def make(**options: Any) -> DevCluster:
        name = devcluster.session_name(f"own{len(names)}")
        names.append(name)  # before it is up: half of one is taken down too
        try:
            return DevCluster.start(name, **options)
        except devcluster.Unable as why:
            pytest.skip(f"no Slurm on this machine: {why}")

    yield make
    for name in names:
        devcluster.stop(name)


@pytest.fixture(autouse=True)
def _clean_shared_clusters(request: pytest.FixtureRequest) -> Iterator[None]:
    """After a test that used a shared cluster: its jobs are gone, faults mended, nodes idle."""
    yield
    for name in ("slurm_cluster", "slurm_cluster_signal"):
        if name in request.fixturenames and name in _shared:
            _shared[name].clean()


_shared: dict[str, DevCluster] = {}


def _shared_cluster(what: str, *, preempt_signal: bool) -> Iterator[DevCluster]:
    devcluster.remove_stale()
    fixture = "slurm_cluster_signal" if preempt_signal else "slurm_cluster"
    name = devcluster.session_name(what)
    try:
        _shared[fixture] = DevCluster.start(name, preempt_signal=preempt_signal)
        yield _shared[fixture]
    except devcluster.Unable as why:
        pytest.skip(f"no Slurm on this machine: {why}")
    finally:
        _shared.pop(fixture, None)
        devcluster.stop(name)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """small_disk(size, inodes): a folder that is a real file system of so many bytes."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    mounted: list[Path] = []

    def make(size: int, inodes: int | None = None) -> Path:
        folder = tmp_path / f"disk-{len(mounted)}"
        folder.mkdir()
        options = f"size={size}" + (f",nr_inodes={inodes}" if inodes else "")
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"no small file system can be mounted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    try:
        yield make
    finally:
        for folder in mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
