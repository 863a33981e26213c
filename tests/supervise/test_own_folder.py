"""A launcher's own folder: there, fresh, and gone again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clusterseg.runs.paths import RunPaths
from clusterseg.supervise.own_folder import (
    is_chosen,
    make_own_folder,
    own_folder,
    remove_own_folder,
)

PLAN: Any = SimpleNamespace(session_variable="PLACE", mpirun="/nowhere/bin/mpirun")


def test_each_attempt_has_its_own_and_clears_what_those_before_left(tmp_path: Path) -> None:
    run, environ = RunPaths(tmp_path / "run"), {"TMPDIR": str(tmp_path), "HOME": str(tmp_path)}
    first = make_own_folder(environ, PLAN, run, 0, ())
    folder = Path(first["PLACE"])
    assert folder.parent == tmp_path
    assert folder.stat().st_mode & 0o777 == 0o700
    (folder / "ompi.7").mkdir()  # and its supervisor is killed
    # As a rank of the first one would start it.
    second = make_own_folder({**environ, **first}, PLAN, run, 1, ())
    assert [str(path) for path in tmp_path.glob("clusterseg-*")] == [second["PLACE"]]
    (Path(second["PLACE"]) / "ompi.8").mkdir()
    remove_own_folder(environ, run, 1)
    assert not list(tmp_path.glob("clusterseg-*"))


def test_a_place_that_is_taken_is_left_alone(tmp_path: Path) -> None:
    run, environ = RunPaths(tmp_path / "run"), {"TMPDIR": str(tmp_path), "HOME": str(tmp_path)}
    own_folder(environ, run, 0).symlink_to(tmp_path)
    assert make_own_folder(environ, PLAN, run, 0, ()) == {}
    remove_own_folder(environ, run, 0)
    assert tmp_path.exists()
    assert make_own_folder(environ, SimpleNamespace(session_variable=None), run, 1, ()) == {}


def test_a_site_that_has_chosen_a_place_keeps_it(tmp_path: Path) -> None:
    run, environ = RunPaths(tmp_path / "run"), {"TMPDIR": str(tmp_path), "HOME": str(tmp_path)}
    settings = tmp_path / ".prte" / "mca-params.conf"
    settings.parent.mkdir()
    settings.write_text("# prte_tmpdir_base = /a\nplm_ssh_agent = ssh\n")
    assert make_own_folder(environ, PLAN, run, 0, ())
    settings.write_text("prte_tmpdir_base = /a\n")
    assert make_own_folder(environ, PLAN, run, 1, ()) == {}


@pytest.mark.parametrize(
    ("environ", "argv", "settings", "chosen"),
    [
        ({"PRTE_MCA_prte_tmpdir_base": "/a"}, (), (), True),
        ({"PRTE_MCA_prte_remote_tmpdir_base": "/a"}, (), (), True),
        ({}, ("mpirun", "--prtemca", "prte_local_tmpdir_base", "/a"), (), True),
        ({}, (), ("orte_tmpdir_base=/a",), True),
        ({"TMPDIR": "/a"}, ("mpirun", "-np", "2"), ("# tmpdir_base = /a",), False),
    ],
)
def test_what_is_a_choice(
    environ: dict[str, str], argv: tuple[str, ...], settings: tuple[str, ...], chosen: bool
) -> None:
    assert is_chosen(environ, argv, settings) is chosen
