"""Writes scenes in the CamVid layout (`clusterseg.data.formats.camvid`)."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clusterseg.data.formats.camvid import CLASSES
from clusterseg.data.synth.recipe import PARTS, Recipe
from clusterseg.data.synth.street import street_scene


def names(recipe: Recipe) -> list[str]:
    """Relative paths of all files, in the order of `files`."""
    written = ["label_colors.txt"]
    for part in PARTS:
        written.append(f"{part}.txt")
        for number in range(recipe.count(part)):
            written += [_image(part, number), _mask(part, number)]
    return written


def files(recipe: Recipe) -> Iterator[tuple[str, bytes]]:
    """(relative path, content) of every file, made one by one."""
    colors = "".join(f"{r} {g} {b} {name}\n" for name, (r, g, b) in CLASSES)
    yield "label_colors.txt", colors.encode()
    for number_of_part, part in enumerate(PARTS):
        numbers = range(recipe.count(part))
        lines = "".join(f"{_image(part, n)} {_mask(part, n)}\n" for n in numbers)
        yield f"{part}.txt", lines.encode()
        for n in numbers:
            image, labels = street_scene((recipe.seed, number_of_part << 32 | n), *recipe.size)
            yield _image(part, n), _png(image)
            yield _mask(part, n), _png(labels)


def _image(part: str, number: int) -> str:
    return f"{part}/synth_{number:06d}.png"


def _mask(part: str, number: int) -> str:
    return f"{part}annot/synth_{number:06d}.png"


def _png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    # Level 1: the noise hardly compresses, and level 6 takes five times as long.
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
