"""For which MPI Horovod was built is read from its record."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from clusterseg.cluster.horovod_record import horovod_fits
from clusterseg.plan.model import LauncherPair


class TestHorovod:
    """Horovod counts only with the record of a build for this very pair."""

    @pytest.fixture
    def site(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A folder on this Python's path that holds a Horovod built for `pair`."""
        folder = tmp_path / "site-packages"
        (folder / "horovod" / "tensorflow").mkdir(parents=True)
        (folder / "tensorflow-2.21.0.dist-info").mkdir()
        (tmp_path / "libmpi.so.40").touch()
        monkeypatch.setattr(sys, "path", [str(folder)])
        self.record(folder, tmp_path)
        return folder

    def record(self, folder: Path, tmp_path: Path, **other: str) -> None:
        built = {
            "tensorflow": "2.21.0",
            "mpi_version": "5.0.11",
            "libmpi": str(tmp_path / "libmpi.so.40"),
        }
        (folder / "horovod_build.json").write_text(json.dumps(built | other))

    def pair(self, tmp_path: Path, version: str = "5.0.11") -> LauncherPair:
        return LauncherPair(
            name="openmpi5",
            version=version,
            program="/x/mpirun",
            libmpi=str(tmp_path / "libmpi.so.40"),
        )

    def test_fits(self, site, tmp_path):
        assert horovod_fits(self.pair(tmp_path))

    def test_does_not_fit_another_mpi(self, site, tmp_path):
        (tmp_path / "other.so").touch()
        self.record(site, tmp_path, libmpi=str(tmp_path / "other.so"))
        assert not horovod_fits(self.pair(tmp_path))

    def test_does_not_fit_another_version_in_the_same_place(self, site, tmp_path):
        assert not horovod_fits(self.pair(tmp_path, "5.0.12"))

    def test_does_not_fit_another_tensorflow(self, site, tmp_path):
        self.record(site, tmp_path, tensorflow="2.22.0")
        assert not horovod_fits(self.pair(tmp_path))

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"libmpi": 3}', "null"])
    def test_a_broken_record_is_none(self, site, tmp_path, text):
        (site / "horovod_build.json").write_text(text)
        assert not horovod_fits(self.pair(tmp_path))

    def test_without_a_record_it_is_not_known_what_it_is_bound_to(self, site, tmp_path):
        (site / "horovod_build.json").unlink()
        assert not horovod_fits(self.pair(tmp_path))

    def test_plain_processes_have_no_mpi(self, site):
        assert not horovod_fits(LauncherPair(name="local", version="", program=""))
