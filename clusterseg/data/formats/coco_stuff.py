"""The layout of COCO-Stuff.

    images/{train2017,val2017}/<12 digits>.jpg
    annotations/{train2017,val2017}/<12 digits>.png       or in stuffthingmaps/

Masks hold the id of a class less 1: 0 to 90 are things, 91 to 181 stuff, 255 is nothing. Eleven of
the things' ids were never used, so that 171 classes are left.
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

_THINGS = names_of(
    """
    person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light,
    fire hydrant, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant,
    bear, zebra, giraffe, backpack, umbrella, handbag, tie, suitcase, frisbee, skis, snowboard,
    sports ball, kite, baseball bat, baseball glove, skateboard, surfboard, tennis racket,
    bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange,
    broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed,
    dining table, toilet, tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven,
    toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear, hair drier, toothbrush
    """
)
_STUFF = names_of(
    """
    banner, blanket, branch, bridge, building-other, bush, cabinet, cage, cardboard, carpet,
    ceiling-other, ceiling-tile, cloth, clothes, clouds, counter, cupboard, curtain, desk-stuff,
    dirt, door-stuff, fence, floor-marble, floor-other, floor-stone, floor-tile, floor-wood,
    flower, fog, food-other, fruit, furniture-other, grass, gravel, ground-other, hill, house,
    leaves, light, mat, metal, mirror-stuff, moss, mountain, mud, napkin, net, paper, pavement,
    pillow, plant-other, plastic, platform, playingfield, railing, railroad, river, road, rock,
    roof, rug, salad, sand, sea, shelf, sky-other, skyscraper, snow, solid-other, stairs, stone,
    straw, structural-other, table, tent, textile-other, towel, tree, vegetable, wall-brick,
    wall-concrete, wall-other, wall-panel, wall-stone, wall-tile, wall-wood, water-other,
    waterdrops, window-blind, window-other, wood
    """
)
_UNUSED = frozenset({11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90})
_FIRST_STUFF = 91

VALUES = (
    *(value for value in range(_FIRST_STUFF) if value not in _UNUSED),
    *range(_FIRST_STUFF, _FIRST_STUFF + len(_STUFF)),
)
"""Class -> what stands in the masks."""
CLASSES = (*_THINGS, *_STUFF)

_NOTHING = 255
_COLORS = default_colors(256)


def open_dataset(
    spec: DataSpec, root: Path, ignore: int | None, faults: Faults = STRICT
) -> Dataset:
    """COCO-Stuff below `root`: 171 classes, things first.

    Nothing (255) becomes `ignore`; with `ignore: null` it is one more class.
    """
    refuse_split(spec.validation_split, "COCO-Stuff")
    table = value_table(VALUES, void=[_NOTHING], ignore=ignore)
    train = faults.part(lambda: _samples(root, "train2017", faults), NOTHING)
    validation = faults.part(lambda: _samples(root, "val2017", faults), NOTHING)
    classes = own_classes(ignore)
    return Dataset(
        name="coco_stuff",
        class_names=classes.names,
        colors=classes.colors,
        size=spec.size or first_size(train, skip=spec.on_unreadable == "skip"),
        train=Part("train", train, table),
        validation=Part("validation", validation, table),
        label_ids=classes.ids,
    )


def own_classes(ignore: int | None) -> ClassTable:
    """The 171, and with `ignore: null` nothing."""
    names = (*CLASSES, "nothing") if ignore is None else CLASSES
    ids = (*VALUES, _NOTHING)[: len(names)]
    # From 1 on: the first one of the map is black.
    return ClassTable(names, tuple(_COLORS[(one + 1) % 256] for one in ids), ids)


def _samples(root: Path, part: str, faults: Faults) -> tuple[Sample, ...]:
    pictures, masks = root / "images" / part, root / "annotations" / part
    if not masks.is_dir() and (root / "stuffthingmaps" / part).is_dir():
        masks = root / "stuffthingmaps" / part
    return pictures_and_masks(pictures, masks, faults)
