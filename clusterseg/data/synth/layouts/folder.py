"""Writes street scenes as two folders a part, of files with equal names.

    images/  masks/                            the training part
    validation_images/  validation_masks/
    test_images/  test_masks/                  where there are pictures of it
    label_colors.txt                           lines `R G B name`

Classes are CamVid's eleven, void is 255. By the recipe's `labels` a mask is grey, or has a palette,
or has three channels, of which blue holds the classes and the others a colour for people to see.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from clusterseg.data.formats.camvid import CLASSES
from clusterseg.data.synth.encode import palette_png, png
from clusterseg.data.synth.recipe import PARTS, Recipe, scene_key
from clusterseg.data.synth.street import VOID, street_scene

OPTIONS: frozenset[str] = frozenset({"labels"})

NOTHING = 255
_PREFIX = {"train": "", "val": "validation_", "test": "test_"}
_COLORS = [color for _, color in CLASSES[:VOID]] + [(0, 0, 0)] * (256 - VOID)


def names(recipe: Recipe) -> list[str]:
    """Relative paths of all files, in the order of `files`."""
    written = ["label_colors.txt"]
    for part in PARTS:
        for number in range(recipe.count(part)):
            written += [_path(part, "images", number), _path(part, "masks", number)]
    return written


def files(recipe: Recipe) -> Iterator[tuple[str, bytes]]:
    """(relative path, content) of every file, made one by one."""
    colors = "".join(f"{r} {g} {b} {name}\n" for name, (r, g, b) in CLASSES[:VOID])
    yield "label_colors.txt", colors.encode()
    for part in PARTS:
        for number in range(recipe.count(part)):
            image, labels = street_scene(scene_key(recipe, part, number), *recipe.size)
            values = np.where(labels == VOID, np.uint8(NOTHING), labels)
            yield _path(part, "images", number), png(image)
            yield _path(part, "masks", number), _encoded(values, recipe.labels)


def _encoded(values: NDArray[np.uint8], labels: str) -> bytes:
    if labels == "palette":
        return palette_png(values, _COLORS)
    if labels == "blue":
        shown = np.array(_COLORS, np.uint8)[values]
        return png(np.stack([shown[..., 0], shown[..., 1], values], axis=-1))
    return png(values)


def _path(part: str, what: str, number: int) -> str:
    return f"{_PREFIX[part]}{what}/synth_{number:06d}.png"
