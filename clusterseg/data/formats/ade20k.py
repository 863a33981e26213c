"""The layout of the ADE20K scene parsing challenge.

    images/{training,validation}/ADE_{train,val}_<8 digits>.jpg
    annotations/{training,validation}/ADE_{train,val}_<8 digits>.png

Masks are grey: 0 is other, 1 to 150 are the classes. The root is ADEChallengeData2016, or the
folder around it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from clusterseg.data.colormap import default_colors
from clusterseg.data.dataset import ClassTable, Dataset, Part, Sample, value_table
from clusterseg.data.faults import NOTHING, STRICT, Faults
from clusterseg.data.listing import (
    first_size,
    names_of,
    pictures_and_masks,
    refuse_split,
)

if TYPE_CHECKING:
    from clusterseg.spec.model import DataSpec

CLASSES = names_of(
    """
    wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk,
    person, earth, door, table, mountain, plant, curtain, chair, car, water, painting, sofa,
    shelf, house, sea, mirror, rug, field, armchair, seat, fence, desk, rock, wardrobe, lamp,
    bathtub, railing, cushion, base, box, column, signboard, chest of drawers, counter, sand,
    sink, skyscraper, fireplace, refrigerator, grandstand, path, stairs, runway, case,
    pool table, pillow, screen door, stairway, river, bridge, bookcase, blind, coffee table,
    toilet, flower, book, hill, bench, countertop, stove, palm, kitchen island, computer,
    swivel chair, boat, bar, arcade machine, hovel, bus, towel, light, truck, tower, chandelier,
    awning, streetlight, booth, television receiver, airplane, dirt track, apparel, pole, land,
    bannister, escalator, ottoman, bottle, buffet, poster, stage, van, ship, fountain,
    conveyer belt, canopy, washer, plaything, swimming pool, stool, barrel, basket, waterfall,
    tent, bag, minibike, cradle, oven, ball, food, step, tank, trade name, microwave, pot,
    animal, bicycle, lake, dishwasher, screen, blanket, sculpture, hood, sconce, vase,
    traffic light, tray, ashcan, fan, pier, crt screen, plate, monitor, bulletin board, shower,
    radiator, glass, clock, flag
    """
)
_VALUES = range(1, 1 + len(CLASSES))
_OTHER = 0
_COLORS = default_colors(1 + len(CLASSES))


def open_dataset(
    spec: DataSpec, root: Path, ignore: int | None, faults: Faults = STRICT
) -> Dataset:
    """ADE20K below `root`: 150 classes.

    Other (0) becomes `ignore`; with `ignore: null` it is one more class, the last.
    """
    refuse_split(spec.validation_split, "ADE20K")
    if (root / "ADEChallengeData2016").is_dir():
        root /= "ADEChallengeData2016"
    table = value_table(_VALUES, void=[_OTHER], ignore=ignore)
    train = faults.part(lambda: _samples(root, "training", faults), NOTHING)
    validation = faults.part(lambda: _samples(root, "validation", faults), NOTHING)
    classes = own_classes(ignore)
    return Dataset(
        name="ade20k",
        class_names=classes.names,
        colors=classes.colors,
        size=spec.size or first_size(train, skip=spec.on_unreadable == "skip"),
        train=Part("train", train, table),
        validation=Part("validation", validation, table),
        label_ids=classes.ids,
    )


def own_classes(ignore: int | None) -> ClassTable:
    """The 150, and with `ignore: null` other."""
    names = (*CLASSES, "other") if ignore is None else CLASSES
    ids = (*_VALUES, _OTHER)[: len(names)]
    return ClassTable(names, tuple(_COLORS[one] for one in ids), ids)


def _samples(root: Path, part: str, faults: Faults) -> tuple[Sample, ...]:
    pictures, masks = root / "images" / part, root / "annotations" / part
    return pictures_and_masks(pictures, masks, faults)
