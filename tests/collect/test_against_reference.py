"""Every figure of the summary equals the slow reference's, whatever happened to the run."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterseg.collect import files, reading, summarize
from clusterseg.runs.attempts import pack_attempt
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import State
from tests.collect import reference
from tests.collect.scenarios import make_run


def collected(root: Path, **options: Any) -> dict[str, Any]:
    summary = summarize.collect(RunPaths(root), State.STOPPED, **options).summary
    return json.loads(files.as_json(summary))


def assert_equal(found: Any, expected: Any, where: str = "summary") -> None:
    """Equal in every key, floats to 9 digits."""
    if isinstance(expected, dict):
        assert isinstance(found, dict), where
        assert found.keys() == expected.keys(), where
        for key, value in expected.items():
            assert_equal(found[key], value, f"{where}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for index, value in enumerate(expected):
            assert_equal(found[index], value, f"{where}[{index}]")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-9), where
    else:
        assert found == expected, where


@settings(max_examples=250, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    attempts=st.integers(0, 5),
    ranks=st.integers(1, 4),
    windows=st.integers(0, 12),
)
def test_any_run_gives_the_references_figures(
    seed: int, attempts: int, ranks: int, windows: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "run"
        make_run(root, Random(seed), attempts=attempts, ranks=ranks, windows=windows)
        expected = reference.summarize(root, "stopped")
        found = collected(root)
        found.pop("missing")
        assert_equal(found, expected)


@pytest.mark.parametrize("seed", range(6))
def test_small_batches_pieces_and_packed_attempts_change_nothing(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "run"
    make_run(root, Random(f"forms {seed}"))
    run = RunPaths(root)
    plain = collected(root)
    monkeypatch.setattr("clusterseg.runs.eventlog.CHUNK", 300)
    assert_equal(collected(root), plain)
    monkeypatch.setattr(reading, "PIECE", 1)
    assert_equal(collected(root), plain)
    for folder in sorted((root / "attempts").iterdir()):
        if (folder / "end.json").exists() and (folder / "claim.json").exists():
            pack_attempt(run.attempt(int(folder.name)))
    assert_equal(collected(root), plain)


@pytest.mark.slow
def test_several_processes_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "run"
    make_run(root, Random("processes"))
    monkeypatch.setattr(reading, "PIECE", 1)
    assert len(list(root.glob("attempts/*/ranks/*"))) > 4
    assert_equal(collected(root, processes=2), collected(root, processes=1))
