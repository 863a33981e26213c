"""The scores of the Cityscapes benchmark (Cordts 2016, section 4): IoU and instance-level IoU.

In numpy, one picture at a time. What is summed up are whole numbers; weights and quotients come
last. So the scores depend neither on the order of the pictures nor on who counted which, and are
those of the benchmark's own scripts but for the last bits of a sum.

- IoU of a class: TP / (TP + FP + FN) over one matrix of all pictures. What is predicted where the
  truth is ignored is no false positive; void predicted on a class is a false negative.
- nIoU: true positives and false negatives of each instance weigh the mean size of its class / its
  own size; false positives belong to no instance and weigh 1. Groups (bare ids) are not instances.
- A category is right where any of its classes is predicted. In the categories' nIoU caravan and
  trailer are right on vehicles, though as classes both are ignored.
- Undefined scores (0 / 0) are None, and left out of means.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clusterseg.data.cityscapes import AVERAGE_INSTANCE_PIXELS, CATEGORIES, LABELS, Label
from clusterseg.errors import ClustersegError
from clusterseg.metrics.runs import Map, counts, histogram, is_ragged, run_lengths

_BY_ID = {label.id: label for label in LABELS if label.id >= 0}
_IDS = len(_BY_ID)
_PER_LABEL = 1000  # instance id = label id x 1000 + number
_CATEGORY = np.array([CATEGORIES.index(_BY_ID[one].category) for one in range(_IDS)])
_COUNTED = np.array([not _BY_ID[one].ignored for one in range(_IDS)])
_WEIGHED = np.array([_BY_ID[one].name in AVERAGE_INSTANCE_PIXELS for one in range(_IDS)])


@dataclass(frozen=True, eq=False)
class Tally:
    """What was counted: tallies of parts add up to that of the whole.

    `matrix` is int64 [34, 34], rows the truth, columns the prediction, by label id, in pixels.
    `instances` is int64 [n, 4], a row an instance: label id, pixels, those predicted right, those
    predicted as any label of its category. None if a picture had no instances to look at.
    """

    matrix: NDArray[np.int64]
    instances: NDArray[np.int64] | None

    @classmethod
    def empty(cls) -> Tally:
        """That of no picture."""
        return cls(np.zeros((_IDS, _IDS), np.int64), np.zeros((0, 4), np.int64))

    @classmethod
    def total(cls, tallies: Iterable[Tally]) -> Tally:
        """The sum; a row an instance is all that is kept of each."""
        matrix = np.zeros((_IDS, _IDS), np.int64)
        rows: list[NDArray[np.int64]] | None = [np.zeros((0, 4), np.int64)]
        for one in tallies:
            matrix += one.matrix
            if one.instances is None:
                rows = None
            elif rows is not None:
                rows.append(one.instances)
        return cls(matrix, None if rows is None else np.concatenate(rows))


@dataclass(frozen=True)
class Score:
    """Of a class, a category, or the mean of all; None where it is undefined."""

    iou: float | None
    niou: float | None


@dataclass(frozen=True)
class Scores:
    """`classes` by name (19), `categories` by name (7), and the means over those defined."""

    classes: dict[str, Score]
    categories: dict[str, Score]
    mean_classes: Score
    mean_categories: Score

    def record(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {
            "mean_iou": self.mean_classes.iou,
            "mean_niou": self.mean_classes.niou,
            "mean_category_iou": self.mean_categories.iou,
            "mean_category_niou": self.mean_categories.niou,
            "classes": _plain(self.classes),
            "categories": _plain(self.categories),
        }


def tally(truth: Map, prediction: Map, instances: Map | None) -> Tally:
    """Counts one picture. All are integers [height, width]: label ids of the truth and of the
    prediction, and instance ids (any value up to 1000 is no instance).

    Raises ClustersegError: another size, a value that is no label id, an instance of a label that
    has none.
    """
    for what, one in (("prediction", prediction), ("instance map", instances)):
        if one is not None and one.shape != truth.shape:
            raise ClustersegError(
                f"the {what} is {_size(one)}, but the truth is {_size(truth)} (height x width)",
                code="bad-size",
                help="predictions are scored at the size of the ground truth: resize logits, and "
                "take the best class afterwards",
            )
    maps = (truth, prediction) if instances is None else (truth, prediction, instances)
    values, lengths = [one.reshape(-1) for one in maps], None
    if not is_ragged(*maps):
        starts, lengths = run_lengths(*maps)
        values = [one[starts] for one in values]
    true, predicted = (_label_ids(one, what) for one, what in zip(values, _NAMES, strict=False))
    matrix = histogram(true * np.uint16(_IDS) + predicted, lengths, _IDS**2).reshape(_IDS, _IDS)
    if instances is None:
        return Tally(matrix, None)
    return Tally(matrix, _instances(values[2], predicted, lengths))


def judge(total: Tally) -> Scores:
    """The scores of what was counted."""
    weighted = _weighted(total.instances)
    classes = {
        label.name: Score(
            _class_iou(total.matrix, label), _class_niou(total.matrix, label, weighted)
        )
        for label in LABELS
        if not label.ignored
    }
    categories = {
        name: Score(
            _category_iou(total.matrix, number), _category_niou(total.matrix, number, weighted)
        )
        for number, name in enumerate(CATEGORIES)
        if _COUNTED[number == _CATEGORY].any()
    }
    return Scores(classes, categories, _mean(classes), _mean(categories))


def drawn(total: Tally) -> NDArray[np.int64]:
    """int64 [19, 20]: of `matrix` what the scores of the classes come from, in their order; the
    last column is what was predicted as none of them."""
    rows = total.matrix[_COUNTED]
    return np.column_stack([rows[:, _COUNTED], rows[:, ~_COUNTED].sum(axis=1)])


_NAMES = ("ground truth", "prediction")


def _size(one: Map) -> str:
    return "x".join(map(str, one.shape))


def _label_ids(values: Map, what: str) -> NDArray[np.uint16]:
    if values.size and (values.min() < 0 or values.max() >= _IDS):
        wrong = (values < 0) | (values >= _IDS)
        listed = sorted({int(one) for one in np.unique(values[wrong])})
        shown = ", ".join(map(str, listed[:8])) + (", ..." if len(listed) > 8 else "")
        raise ClustersegError(
            f"the {what} holds {shown}, which is no label id",
            code="bad-class-id",
            help=f"labelIds are 0 to {_IDS - 1}; they are not train ids, whose 255 counts nowhere",
        )
    return values.astype(np.uint16)


def _instances(
    ids: Map, predicted: NDArray[np.uint16], lengths: NDArray[np.int64] | None
) -> NDArray[np.int64]:
    """int64 [n, 4], as in `Tally`."""
    chosen = np.flatnonzero(ids > _PER_LABEL)
    ids, predicted = ids[chosen].astype(np.int64), predicted[chosen]
    if ids.size and int(ids.max()) >= _IDS * _PER_LABEL:
        raise _no_instance(int(ids.max()), "no label id")
    keys, pixels = counts(ids * _IDS + predicted, None if lengths is None else lengths[chosen])
    scored = _COUNTED[keys // _IDS // _PER_LABEL]
    keys, pixels = keys[scored], pixels[scored]
    found, place = np.unique(keys // _IDS, return_inverse=True)
    for number in found[~_WEIGHED[found // _PER_LABEL]][:1].tolist():
        name = _BY_ID[number // _PER_LABEL].name
        raise _no_instance(number, f"{name}, which has no instances")
    rows = np.zeros((len(found), 4), np.int64)
    rows[:, 0] = found // _PER_LABEL
    label, guess = rows[place, 0], keys % _IDS
    np.add.at(rows[:, 1], place, pixels)
    np.add.at(rows[:, 2], place, np.where(guess == label, pixels, 0))
    np.add.at(rows[:, 3], place, np.where(_CATEGORY[guess] == _CATEGORY[label], pixels, 0))
    return rows


def _no_instance(number: int, why: str) -> ClustersegError:
    return ClustersegError(
        f"the instance map holds {number}: {number // _PER_LABEL} is {why}",
        code="bad-instance-id",
        help=f"instance ids are label id x {_PER_LABEL} + number",
    )


@dataclass(frozen=True)
class _Sides:
    """Weighted pixels of instances: those that are right, and those that are not."""

    right: float
    wrong: float


_Weighted = dict[str, tuple[_Sides, _Sides]]


def _weighted(instances: NDArray[np.int64] | None) -> _Weighted | None:
    """By the name of a class: its instances judged as the class, and as its category."""
    if instances is None:
        return None
    found: _Weighted = {}
    for label in LABELS:
        if label.ignored or not label.has_instances:
            continue
        rows = instances[instances[:, 0] == label.id].astype(np.float64)
        weights = AVERAGE_INSTANCE_PIXELS[label.name] / rows[:, 1]
        sides = (
            _Sides(
                right=math.fsum(rows[:, column] * weights),
                wrong=math.fsum((rows[:, 1] - rows[:, column]) * weights),
            )
            for column in (2, 3)
        )
        found[label.name] = (next(sides), next(sides))
    return found


def _class_iou(matrix: NDArray[np.int64], label: Label) -> float | None:
    hit = int(matrix[label.id, label.id])
    return _quotient(hit, int(matrix[label.id].sum()) + _false_positives(matrix, label))


def _class_niou(
    matrix: NDArray[np.int64], label: Label, weighted: _Weighted | None
) -> float | None:
    if weighted is None or label.name not in weighted:
        return None
    sides = weighted[label.name][0]
    return _quotient(sides.right, sides.right + _false_positives(matrix, label) + sides.wrong)


def _false_positives(matrix: NDArray[np.int64], label: Label) -> int:
    counted = _COUNTED.copy()
    counted[label.id] = False
    return int(matrix[counted, label.id].sum())


def _category_iou(matrix: NDArray[np.int64], number: int) -> float | None:
    inside = _COUNTED & (number == _CATEGORY)
    hit = int(matrix[inside][:, inside].sum())
    outside = _COUNTED & (number != _CATEGORY)
    false = int(matrix[outside][:, inside].sum())
    return _quotient(hit, int(matrix[inside].sum()) + false)


def _category_niou(
    matrix: NDArray[np.int64], number: int, weighted: _Weighted | None
) -> float | None:
    """Of a category all of whose labels have instances; the ignored ones are predicted, too."""
    members = [label for label in _BY_ID.values() if label.category == CATEGORIES[number]]
    if weighted is None or not all(label.has_instances for label in members):
        return None
    sides = [weighted[label.name][1] for label in members if label.name in weighted]
    right = math.fsum(one.right for one in sides)
    inside, outside = number == _CATEGORY, _COUNTED & (number != _CATEGORY)
    false = int(matrix[outside][:, inside].sum())
    return _quotient(right, right + false + math.fsum(one.wrong for one in sides))


def _quotient(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _mean(scores: dict[str, Score]) -> Score:
    def over(values: Iterable[float | None]) -> float | None:
        defined = [one for one in values if one is not None]
        return math.fsum(defined) / len(defined) if defined else None

    return Score(
        over(one.iou for one in scores.values()), over(one.niou for one in scores.values())
    )


def _plain(scores: dict[str, Score]) -> dict[str, dict[str, float | None]]:
    return {name: {"iou": one.iou, "niou": one.niou} for name, one in scores.items()}
