"""The folder of an export appears whole or not at all, and nothing that is there goes away."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from clusterseg.errors import ClustersegError
from clusterseg.export.folder import appearing
from clusterseg.export.formats import check_wishes
from clusterseg.export.runtimes import need


def test_it_appears_at_the_end(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "out"
    with appearing(folder) as fresh:
        (fresh / "file").write_text("x")
        assert not folder.exists()
    assert [path.name for path in folder.iterdir()] == ["file"]
    assert [path.name for path in folder.parent.iterdir()] == ["out"]


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError), appearing(tmp_path / "out") as fresh:
        (fresh / "file").write_text("x")
        raise KeyError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_is_there_stays(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    if kind == "file":
        out.write_text("mine")
    elif kind == "link":
        out.symlink_to("nowhere")
    else:
        out.mkdir()
        (out / "mine").touch()
    with pytest.raises(ClustersegError, match="is there already"), appearing(out):
        pass
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("place", [Path("x" * 300), Path("/proc/nothing")], ids=["long", "proc"])
def test_a_place_that_can_not_be_written_is_told(tmp_path: Path, place: Path) -> None:
    with (
        pytest.raises(ClustersegError, match=f"can't write .*{place}") as told,
        appearing(tmp_path / place),
    ):
        pass
    assert told.value.help


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with appearing(out) as fresh:
        (fresh / "file").touch()
    assert (out / "file").exists()


def test_what_comes_while_it_is_made_stays(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ClustersegError, match="can't write"), appearing(out):
        out.mkdir()
        (out / "mine").touch()
    assert (out / "mine").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_full_or_forbidden_disk_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(ClustersegError, match=r"can't write .*Not a directory"),
        appearing(tmp_path / "file" / "out"),
    ):
        pass


@pytest.mark.parametrize(
    ("formats", "changes", "message"),
    [
        (["onxx"], {}, "no format 'onxx'"),
        (["onnx", "tflite-int8"], {"batch": None}, "tflite-int8 can't have a dynamic batch"),
        (["onnx"], {"integer_io": True}, "--integer-io is about tflite-int8"),
        (["tflite-int8"], {"integer_io": True, "raw": True}, "exclude each other"),
        (["keras"], {"argmax": True}, "change nothing in a .keras file"),
        (["onnx"], {"tolerance": math.nan}, "--tolerance nan"),
        (["onnx"], {"flips": math.nan}, "--flips nan"),
    ],
)
def test_what_does_not_go_together_is_told_before_anything_is_loaded(
    formats: list[str], changes: dict[str, Any], message: str
) -> None:
    usual: dict[str, Any] = {"batch": 1, "raw": False, "argmax": False, "integer_io": False}
    check_wishes(["onnx", "keras", "tflite-int8"], **usual)
    with pytest.raises(ClustersegError, match=message):
        check_wishes(formats, **{**usual, **changes})


def test_a_missing_package_is_named_with_the_extra_that_has_it() -> None:
    with pytest.raises(ClustersegError, match="needs no_such_runtime") as caught:
        need("no_such_runtime.interpreter")
    assert "clusterseg[export]" in (caught.value.help or "")
