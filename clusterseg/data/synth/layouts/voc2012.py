"""Writes scenes in the layout of Pascal VOC 2012, with the masks for `extra` pictures where asked.

    JPEGImages/<id>.jpg
    SegmentationClass/<id>.png               palette; 255 around each object
    SegmentationClassAug/<id>.png            grey, without the borders
    ImageSets/Segmentation/{train,val,trainval,test,trainaug}.txt

`trainaug.txt` names the training part and the `extra` pictures, of which there are masks in
SegmentationClassAug only. The test part has no masks.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from clusterseg.data.colormap import default_colors
from clusterseg.data.synth.edges import near_changes
from clusterseg.data.synth.encode import jpeg, palette_png, png
from clusterseg.data.synth.recipe import EXTRA, PARTS, Recipe, scene_key
from clusterseg.data.synth.things import things_scene

OPTIONS: frozenset[str] = frozenset({"extra"})

_CLASSES = 21
_BORDER = 255
_LISTS = "ImageSets/Segmentation"
_ORDER = (*PARTS, EXTRA)


def names(recipe: Recipe) -> list[str]:
    """Relative paths of all files, in the order of `files`."""
    written = [f"{_LISTS}/{name}.txt" for name in _lists(recipe)]
    for part, number in _pictures(recipe):
        one = _id(part, number)
        written.append(f"JPEGImages/{one}.jpg")
        written += [f"{folder}/{one}.png" for folder in _masks(recipe, part)]
    return written


def files(recipe: Recipe) -> Iterator[tuple[str, bytes]]:
    """(relative path, content) of every file, made one by one."""
    for name, listed in _lists(recipe).items():
        yield f"{_LISTS}/{name}.txt", "".join(f"{one}\n" for one in listed).encode()
    for part, number in _pictures(recipe):
        one = _id(part, number)
        image, labels = things_scene(
            scene_key(recipe, part, number), *recipe.size, stuff=(0,), things=range(1, _CLASSES)
        )
        yield f"JPEGImages/{one}.jpg", jpeg(image)
        for folder in _masks(recipe, part):
            if folder.endswith("Aug"):
                yield f"{folder}/{one}.png", png(labels)
            else:
                border = near_changes(labels, max(1, labels.shape[0] // 120))
                mask = np.where(border, np.uint8(_BORDER), labels)
                yield f"{folder}/{one}.png", palette_png(mask, default_colors(256))


def _pictures(recipe: Recipe) -> Iterator[tuple[str, int]]:
    for part in _ORDER:
        for number in range(recipe.count(part)):
            yield part, number


def _masks(recipe: Recipe, part: str) -> tuple[str, ...]:
    if part == "test":
        return ()
    if part == EXTRA:
        return ("SegmentationClassAug",)
    return ("SegmentationClass", "SegmentationClassAug") if recipe.extra else ("SegmentationClass",)


def _lists(recipe: Recipe) -> dict[str, list[str]]:
    ids = {part: [_id(part, n) for n in range(recipe.count(part))] for part in _ORDER}
    lists = {part: ids[part] for part in PARTS}
    lists["trainval"] = ids["train"] + ids["val"]
    if recipe.extra:
        lists["trainaug"] = ids["train"] + ids[EXTRA]
    return lists


def _id(part: str, number: int) -> str:
    return f"{2007 + _ORDER.index(part)}_{number:06d}"
