"""The comparison with the reference finds defects: each one planted here makes it fail."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import pytest

import clusterseg.collect
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import State
from tests.collect import reference
from tests.collect.scenarios import make_run
from tests.collect.test_against_reference import assert_equal

RUNS = 60
FOLDER = Path(clusterseg.collect.__file__).parent

# (module, what stands there, what is put in its place)
DEFECTS = [
    ("windows", "return max(0, count - (step - limit))", "return 0"),
    ("windows", "return max(0, count - (step - limit))", "return count - (step - limit)"),
    ("windows", "images * part, seconds * part", "images, seconds * part"),
    ("windows", "images * part, seconds * part", "images * part, seconds"),
    ("windows", "ours if ours > own else own", "ours"),
    ("windows", "map(operator.add, self.images[:same], rows.images)", "rows.images[:same]"),
    ("windows", "self.seconds[at] = max(self.seconds[at], rows.seconds[row])", "pass"),
    ("windows", "self.images[at] += rows.images[row]", "pass"),
    ("windows", "range(same, len(rows.step))", "range(len(rows.step))"),
    ("windows", "seconds=first.seconds + seconds", "seconds=seconds"),
    ("windows", "later_seconds=seconds", "later_seconds=first.seconds + seconds"),
    ("windows", "later_images=images", "later_images=first.images + images"),
    ("ranklog", "map(operator.sub, rows.seconds, self._comm)", "rows.seconds"),
    ("ranklog", "map(operator.truediv, compute, rows.count)", "compute"),
    ("ranklog", "(ordered[middle - 1] + ordered[middle]) / 2", "ordered[middle]"),
    ("ranklog", "ordered = sorted(values)", "ordered = list(values)"),
    ("ranklog", "sum(images[:first]) + sum(images[first + 1 :])", "sum(images)"),
    ("ranklog", "list(map(operator.mul, seconds, parts))", "seconds"),
    ("ranklog", "event.step <= known.step", "event.step < known.step"),
    ("ranklog", "event.step <= known.step", "True"),
    ("ranklog", "and step > self._limit", "and step >= self._limit"),
    ("ranklog", "if log.rank != 0 or self._is_replayed(event)", "if log.rank != 0"),
    ("ranklog", "self.first_step != attempts_first_step", "True"),
    ("ranklog", "self.first_step != attempts_first_step", "False"),
    ("ranklog", "max(times) if log.latest is None", "times[0] if log.latest is None"),
    ("figures", "resume < lowest", "resume > lowest"),
    ("figures", "limits.append(lowest)", "limits.append(resume)"),
    ("figures", "and not end.will_restart and", "and"),
    ("figures", "and not end.will_restart and", "and end.will_restart and"),
    ("figures", "available = latest - starts[0] - idle", "available = latest - starts[0]"),
    ("figures", "max([*starts, *ends, *", "max([*starts, *"),
    ("figures", "max([*starts, *ends, *", "max([*ends, *"),
    ("figures", "smallest = min(medians", "smallest = max(medians"),
    ("figures", "return smallest / own", "return own / smallest"),
    (
        "figures",
        "for read in reads\n        for epoch",
        "for read in reads[::-1]\n        for epoch",
    ),
    ("figures", "first, last = end.first_step, end.last_step", "pass"),
    ("figures", "found[-1] if found", "found[0] if found"),
    ("summarize", "if totals.last_step is not None:", "if True:"),
    ("summarize", "lambda entry: entry.val_accuracy or 0.0", "lambda entry: entry.epoch"),
    ("summarize", "best = max(validated", "best = min(validated"),
    ("summarize", "first.step - first.count", "first.step"),
    ("summarize", 'saved.step == best.step or "-step-" not in saved.file', "True"),
    ("reading", "whole.merge(reading)", "whole = reading"),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, dict[str, Any]]]:
    """Runs that hold something of everything, with the reference's summaries."""
    folder = tmp_path_factory.mktemp("runs")
    found = []
    for seed in range(RUNS):
        root = folder / f"run-{seed}"
        make_run(root, Random(f"planted {seed}"))
        found.append((root, reference.summarize(root, "stopped")))
    return found


def test_without_a_defect_all_is_well(runs: list[tuple[Path, dict[str, Any]]]) -> None:
    with planted("windows", "", "") as summarize:
        assert not differs(summarize, runs)


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: f"{defect[0]}: {defect[2][:40]}")
def test_a_planted_defect_is_found(
    defect: tuple[str, str, str], runs: list[tuple[Path, dict[str, Any]]]
) -> None:
    with planted(*defect) as summarize:
        assert differs(summarize, runs)


def differs(summarize: ModuleType, runs: list[tuple[Path, dict[str, Any]]]) -> bool:
    """True if the summary of any run is not the reference's, or can't be made."""
    files = importlib.import_module("clusterseg.collect.files")
    reading = importlib.import_module("clusterseg.collect.reading")
    whole = reading.PIECE
    for number, (root, expected) in enumerate(runs):
        reading.PIECE = 1 if number % 2 else whole  # each rank read apart, and merged
        try:
            summary = summarize.collect(RunPaths(root), State.STOPPED).summary
            found = json.loads(files.as_json(summary))
            found.pop("missing")
            assert_equal(found, expected)
        except Exception:
            return True
        except AssertionError:
            return True
    return False


@contextmanager
def planted(module: str, what: str, instead: str) -> Iterator[ModuleType]:
    """clusterseg.collect.summarize as it would be with a text of one module replaced."""
    source = (FOLDER / f"{module}.py").read_text()
    assert not what or source.count(what) == 1, f"{what!r} stands {source.count(what)} times"
    name = f"clusterseg.collect.{module}"
    package = clusterseg.collect
    kept = {key: value for key, value in sys.modules.items() if _is_collect(key)}
    attributes = dict(vars(package))
    for key in kept:
        del sys.modules[key]
        vars(package).pop(key.rpartition(".")[2], None)
    try:
        changed = ModuleType(name)
        changed.__file__ = str(FOLDER / f"{module}.py")
        sys.modules[name] = changed
        setattr(package, module, changed)
        exec(compile(source.replace(what, instead) if what else source, name, "exec"),
             changed.__dict__)  # fmt: skip
        yield importlib.import_module("clusterseg.collect.summarize")
    finally:
        for key in [key for key in sys.modules if _is_collect(key)]:
            del sys.modules[key]
        sys.modules.update(kept)
        vars(package).update(attributes)


def _is_collect(name: str) -> bool:
    return name.startswith("clusterseg.collect.")
