"""The table of Cityscapes' labels: its numberings agree with each other."""

from __future__ import annotations

from clusterseg.data.cityscapes import (
    AVERAGE_INSTANCE_PIXELS,
    CATEGORIES,
    CLASSES,
    ID_TO_TRAIN,
    IGNORED,
    LABELS,
    TRAIN_TO_ID,
)
from clusterseg.data.dataset import INVALID


def test_nineteen_classes_are_numbered_without_a_gap() -> None:
    assert [one.train_id for one in CLASSES] == list(range(19))
    assert (7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33) == TRAIN_TO_ID


def test_ids_lead_to_their_class_and_back() -> None:
    assert [ID_TO_TRAIN[number] for number in TRAIN_TO_ID] == list(range(19))
    others = set(range(34)) - set(TRAIN_TO_ID)
    assert {ID_TO_TRAIN[number] for number in others} == {IGNORED}
    assert set(ID_TO_TRAIN[34:]) == {INVALID}


def test_what_has_instances_has_a_mean_size() -> None:
    assert {one.name for one in LABELS if one.has_instances} == set(AVERAGE_INSTANCE_PIXELS)
    assert all(one.category in {"human", "vehicle"} for one in LABELS if one.has_instances)


def test_classes_have_colours_of_their_own() -> None:
    assert len({one.color for one in CLASSES}) == 19
    assert len(CATEGORIES) == 8
