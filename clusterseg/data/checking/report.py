"""Runs the scan over a whole data set: `check` for everything, `stats` for its classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from clusterseg.data.balance import balanced_weights
from clusterseg.data.checking.findings import Finding, PartSurvey, Survey
from clusterseg.data.checking.scan import scan
from clusterseg.data.dataset import Dataset, Part
from clusterseg.data.faults import NO_MASKS, Gathered
from clusterseg.errors import ClustersegError

OF_THE_SET = frozenset(
    {"missing-file", "bad-list", "empty-list", "no-validation", "two-validation-parts"}
    | {"missing-pair", NO_MASKS, "double-name", "empty-part", "mixed-masks", "lossy-mask"}
    | {"unreadable-picture", "bad-picture"}
    | {"damaged-record", "bad-record", "unreadable-shard"}
)
"""Codes of errors with which a format refuses to open a set because of what is in it."""


_NO_TEST = (NO_MASKS, "no-data")  # of a test part that nobody means to use


@dataclass(frozen=True)
class Checked:
    """What `check` found: the parts as they are, and what is wrong, errors first."""

    dataset: Dataset
    parts: tuple[PartSurvey, ...]
    findings: tuple[Finding, ...]

    def values(self) -> dict[str, Any]:
        """As plain values, for `--json`."""
        return {
            "classes": [
                {"number": number, "name": name, "color": color}
                for number, (name, color) in enumerate(
                    zip(self.dataset.class_names, self.dataset.colors, strict=True)
                )
            ],
            "parts": [part.values() for part in self.parts],
            "findings": [asdict(one) for one in self.findings],
        }

    @property
    def errors(self) -> int:
        """Sorts of errors, not files."""
        return sum(one.severity == "error" for one in self.findings)


@dataclass(frozen=True)
class ClassStats:
    """One class in a part. `share` is that of the labelled pixels; `weight` the one that
    `class_weights: balanced` gives it; `pictures` those that show it."""

    number: int
    name: str
    pixels: int
    share: float
    pictures: int
    weight: float


@dataclass(frozen=True)
class Stats:
    """`ignored` are pixels without a class; the pixels of `classes` and they are all there are."""

    part: str
    samples: int
    ignored: int
    classes: tuple[ClassStats, ...]
    findings: tuple[Finding, ...]


def gathered() -> Gathered:
    """To open a set with that is to be looked into, whatever is wrong with it."""
    return Gathered(OF_THE_SET | {"no-data"})


def not_opened(error: ClustersegError) -> Finding:
    """What kept the set, or a part, from being opened, and so from being looked into."""
    return Finding(error.code, "error", error.message, 1, (), (), error.help or "")


def check(
    dataset: Dataset,
    ignore: int | None,
    *,
    workers: int,
    faults: Gathered | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Checked:
    """Reads every file of all parts once; calls `progress(samples done, of all)`.

    `faults` are those that the set was opened with (`gathered`), and are among the findings.
    Raises the first of them where there is nothing that could be a data set.
    """
    faults = gathered() if faults is None else faults
    test = _test_part(dataset, faults)
    parts = (dataset.train, dataset.validation, *([test] if test else []))
    nothing = not faults.lost and not any(map(len, parts))
    if nothing and faults.errors and faults.errors[0].code == "no-data":
        raise faults.errors[0]
    survey = Survey(dataset, ignore)
    survey.lack(faults.lost, faults.helps)
    _read(survey, parts, workers=workers, pictures=True, progress=progress)
    findings = (*map(not_opened, faults.errors), *survey.findings())
    return Checked(dataset, tuple(survey.parts.values()), findings)


def stats(
    dataset: Dataset,
    part: Part,
    ignore: int | None,
    *,
    workers: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Stats:
    """How often each class is in the masks of `part`, at the files' size.

    Masks that can't be used are left out; `findings` has the errors among them.
    """
    survey = Survey(dataset, ignore)
    _read(survey, (part,), workers=workers, pictures=False, progress=progress)
    seen = survey.parts[part.name]
    labelled = sum(seen.class_pixels)
    weights = balanced_weights(seen.class_pixels)
    classes = tuple(
        ClassStats(number, name, pixels, pixels / labelled if labelled else 0.0, pictures, weight)
        for number, (name, pixels, pictures, weight) in enumerate(
            zip(dataset.class_names, seen.class_pixels, seen.class_pictures, weights, strict=True)
        )
    )
    errors = tuple(one for one in survey.findings() if one.severity == "error")
    return Stats(part.name, seen.samples, seen.ignored, classes, errors)


def _test_part(dataset: Dataset, faults: Gathered) -> Part | None:
    """None also where it has no masks, as benchmarks are published, no pictures, or no samples."""
    if dataset.test is None:
        return None
    before = len(faults.errors)
    part = faults.part(dataset.test, None)
    faults.errors[before:] = [one for one in faults.errors[before:] if one.code not in _NO_TEST]
    return part or None


def _read(
    survey: Survey,
    parts: tuple[Part, ...],
    *,
    workers: int,
    pictures: bool,
    progress: Callable[[int, int], None],
) -> None:
    done, total = 0, sum(len(part) for part in parts)
    for part in parts:
        survey.begin(part)
        for facts in scan(part, workers=workers, pictures=pictures):
            survey.add(facts)
            done += 1
            progress(done, total)
