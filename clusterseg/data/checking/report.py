"""Runs the scan over a whole data set: `check` for everything, `stats` for its classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from clusterseg.data.balance import balanced_weights
from clusterseg.data.checking.findings import Finding, PartSurvey, Survey
from clusterseg.data.checking.scan import scan
from clusterseg.data.dataset import Dataset, Part
from clusterseg.errors import ClustersegError

OF_THE_SET = frozenset(
    {"missing-file", "bad-list", "empty-list", "no-validation", "two-validation-parts"}
    | {"missing-pair", "double-name", "empty-part", "mixed-masks", "lossy-mask"}
    | {"unreadable-picture", "bad-picture"}
    | {"damaged-record", "bad-record", "unreadable-shard"}
)
"""Codes of errors with which a format refuses to open a set because of what is in it."""


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


def not_opened(error: ClustersegError) -> Finding:
    """What kept the set from being opened, and so from being looked into, as a finding."""
    return Finding(error.code, "error", error.message, 1, (), (), error.help or "")


def check(
    dataset: Dataset,
    ignore: int | None,
    *,
    workers: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Checked:
    """Reads every file of both parts once; calls `progress(samples done, of all)`."""
    survey = Survey(dataset, ignore)
    parts = (dataset.train, dataset.validation)
    _read(survey, parts, workers=workers, pictures=True, progress=progress)
    return Checked(dataset, tuple(survey.parts.values()), survey.findings())


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
