"""`benchmarks/bench_accuracy.py` trains every network to an accuracy that it states."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clusterseg.models import model_names
from clusterseg.spec.reader import parse_job

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("bench_accuracy")


def start(folder: Path, name: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / "bench_accuracy.py"), "--folder", str(folder)]
    return subprocess.run(
        [*command, "--only", name], check=False, capture_output=True, text=True, timeout=500
    )


def outcome(bench: Any, case: Any, **other: float) -> Any:
    """One that reaches the floors of `case` just so."""
    values = {"accuracy": case.accuracy, "mean_iou": case.mean_iou, **other}
    return bench.Outcome(case.name, parameters=1, steps=1, common=0.3, seconds=1.0, **values)


def test_every_network_has_a_case_of_a_job_that_can_be_submitted(
    bench: Any, tmp_path: Path
) -> None:
    assert {case.model for case in bench.CASES} == set(model_names())
    assert len({case.name for case in bench.CASES}) == len(bench.CASES)
    for case in bench.CASES:
        parse_job(json.dumps(case.job(tmp_path)), case.name, environ={})


def test_a_floor_is_above_what_learns_nothing(bench: Any) -> None:
    """The most frequent class of a street is 0.30 of it, which is a mean IoU of 0.03 of eleven."""
    assert all(case.accuracy >= 0.5 and case.mean_iou >= 0.1 for case in bench.CASES)


def test_all_have_to_reach_both_floors(bench: Any) -> None:
    cases = bench.CASES[:2]
    reached = {case.name: outcome(bench, case) for case in cases}
    assert bench.reached(list(cases), reached)
    first = cases[0]
    for low in ({"accuracy": first.accuracy - 1e-6}, {"mean_iou": first.mean_iou - 1e-6}):
        short = {**reached, first.name: outcome(bench, first, **low)}
        assert not bench.reached(list(cases), short)
    assert not bench.reached(list(cases), {first.name: reached[first.name]})  # one has failed


def test_a_sweep_goes_on_where_it_was_and_tells_what_is_below_its_floor(
    bench: Any, tmp_path: Path
) -> None:
    case = bench.CASES[0]
    kept = tmp_path / case.name / "outcome.json"
    kept.parent.mkdir()
    for low, code in ((0.0, 0), (0.01, 1)):
        known = replace(outcome(bench, case), accuracy=case.accuracy - low)
        values = {"job": case.job(tmp_path / "data"), "outcome": vars(known)}
        kept.write_text(json.dumps(values))
        ended = start(tmp_path, case.name)
        assert ended.returncode == code, ended.stderr
        lines = [json.loads(line) for line in ended.stdout.splitlines()]
        assert [line["met"] for line in lines] == [code == 0, True]
    assert not (tmp_path / case.name / "runs").exists()  # nothing was trained


@pytest.mark.proof
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_small_network_reaches_its_floors(bench: Any, tmp_path: Path) -> None:
    ended = start(tmp_path, "unet")
    assert ended.returncode == 0, ended.stderr
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [line["met"] for line in lines] == [True, True]
    known = json.loads((tmp_path / "unet" / "outcome.json").read_text())
    assert lines[0]["value"] == known["outcome"]["accuracy"]
    assert known["outcome"]["parameters"] > 100_000
