"""What the classes of a network are, with and without the data set that it was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from clusterseg.data import open_dataset
from clusterseg.data.cityscapes import TRAIN_TO_ID
from clusterseg.data.formats.coco_stuff import VALUES
from clusterseg.data.synth.recipe import Recipe
from clusterseg.data.synth.write import write_dataset
from clusterseg.spec.model import TrainSpec
from clusterseg.train.inference.classes import classes_of

IDS = {
    "cityscapes": (TRAIN_TO_ID, 0),
    "voc2012": (tuple(range(21)), 255),
    "ade20k": (tuple(range(1, 151)), 0),
    "coco_stuff": (VALUES, 255),
}


def training(layout: str, root: Path, ignore: int | None, **data: Any) -> TrainSpec:
    values = {
        "model": {"name": "fastscnn"},
        "data": {"format": layout, "root": str(root), "size": [32, 64], **data},
        "loss": {"ignore": ignore},
    }
    return msgspec.convert(values, TrainSpec)


@pytest.mark.parametrize("layout", IDS)
def test_classes_are_the_same_when_the_data_set_is_gone(layout: str, tmp_path: Path) -> None:
    """Where all sets of a layout have the same ones: submissions stay what they were."""
    write_dataset(Recipe(layout, 1, 1, 0, (32, 64), 0), tmp_path / "set")
    ids, void = IDS[layout]
    for ignore, expected in ((255, ids), (None, (*ids, void))):
        spec = training(layout, tmp_path / "set", ignore)
        known = classes_of(spec, {})
        assert known.ids == expected == open_dataset(spec.data, ignore).label_ids
        count = {"model.classes": str(len(expected))}
        gone = classes_of(training(layout, tmp_path / "gone", ignore), count)
        assert gone == known and gone.unknown is None


def test_a_network_of_more_classes_than_the_layout_has_numbers_for_the_others(
    tmp_path: Path,
) -> None:
    found = classes_of(training("cityscapes", tmp_path / "gone", 255), {"model.classes": "21"})
    assert found.ids == (*TRAIN_TO_ID, 34, 35)
    assert found.names[18:] == ("bicycle", "class 19", "class 20")


@pytest.mark.parametrize("layout", ["camvid", "folder", "tfrecord"])
def test_of_layouts_whose_sets_differ_the_note_says_what_ids_are(
    layout: str, tmp_path: Path
) -> None:
    found = classes_of(training(layout, tmp_path / "gone", 255), {"model.classes": "5"})
    assert found.ids == (0, 1, 2, 3, 4)
    assert found.unknown is not None
    assert "ids are class numbers" in found.unknown and "gone" in found.unknown
