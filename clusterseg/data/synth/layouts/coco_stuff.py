"""Writes scenes in the layout of COCO-Stuff.

    images/{train2017,val2017,test2017}/<12 digits>.jpg
    annotations/{train2017,val2017}/<12 digits>.png      grey: 0 to 181, 255 for nothing

Things are 0 to 90, of which eleven numbers are not in use; stuff is 91 to 181.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from clusterseg.data.synth.edges import near_changes
from clusterseg.data.synth.encode import jpeg, png
from clusterseg.data.synth.recipe import PARTS, Recipe, scene_key
from clusterseg.data.synth.things import things_scene

OPTIONS: frozenset[str] = frozenset()

UNUSED = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
THINGS = tuple(number for number in range(91) if number not in UNUSED)
STUFF = tuple(range(91, 182))
_NOTHING = 255


def names(recipe: Recipe) -> list[str]:
    """Relative paths of all files, in the order of `files`."""
    written = []
    for part in PARTS:
        for number in range(recipe.count(part)):
            written.append(f"images/{_place(part, number)}.jpg")
            if part != "test":
                written.append(f"annotations/{_place(part, number)}.png")
    return written


def files(recipe: Recipe) -> Iterator[tuple[str, bytes]]:
    """(relative path, content) of every file, made one by one."""
    for part in PARTS:
        for number in range(recipe.count(part)):
            image, labels = things_scene(
                scene_key(recipe, part, number), *recipe.size, stuff=STUFF, things=THINGS
            )
            yield f"images/{_place(part, number)}.jpg", jpeg(image)
            if part != "test":
                mask = np.where(near_changes(labels, 1), np.uint8(_NOTHING), labels)
                yield f"annotations/{_place(part, number)}.png", png(mask)


def _place(part: str, number: int) -> str:
    # One numbering for all parts, as there.
    return f"{part}2017/{1 + number * len(PARTS) + PARTS.index(part):012d}"
