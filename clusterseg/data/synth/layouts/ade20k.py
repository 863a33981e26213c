"""Writes scenes in the layout of the ADE20K scene parsing challenge.

images/{training,validation}/ADE_{train,val}_<8 digits>.jpg
annotations/{training,validation}/ADE_{train,val}_<8 digits>.png      grey: 0 other, 1 to 150
release_test/testing/ADE_test_<8 digits>.jpg
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from clusterseg.data.synth.edges import near_changes
from clusterseg.data.synth.encode import jpeg, png
from clusterseg.data.synth.recipe import PARTS, Recipe, scene_key
from clusterseg.data.synth.things import things_scene

OPTIONS: frozenset[str] = frozenset()

_CLASSES = range(1, 151)
_OTHER = 0
_FOLDER = {"train": "training", "val": "validation"}


def names(recipe: Recipe) -> list[str]:
    """Relative paths of all files, in the order of `files`."""
    written = []
    for part in PARTS:
        for number in range(recipe.count(part)):
            written.append(_image(part, number))
            if part != "test":
                written.append(_mask(part, number))
    return written


def files(recipe: Recipe) -> Iterator[tuple[str, bytes]]:
    """(relative path, content) of every file, made one by one."""
    for part in PARTS:
        for number in range(recipe.count(part)):
            image, labels = things_scene(
                scene_key(recipe, part, number), *recipe.size, stuff=_CLASSES, things=_CLASSES
            )
            yield _image(part, number), jpeg(image)
            if part != "test":
                mask = np.where(near_changes(labels, 1), np.uint8(_OTHER), labels)
                yield _mask(part, number), png(mask)


def _image(part: str, number: int) -> str:
    name = f"ADE_{part}_{number + 1:08d}.jpg"
    return f"release_test/testing/{name}" if part == "test" else f"images/{_FOLDER[part]}/{name}"


def _mask(part: str, number: int) -> str:
    return f"annotations/{_FOLDER[part]}/ADE_{part}_{number + 1:08d}.png"
