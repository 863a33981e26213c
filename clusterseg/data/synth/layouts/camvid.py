"""Writes scenes in the CamVid layout (`clusterseg.data.formats.camvid`)."""

from __future__ import annotations

from collections.abc import Iterator

from clusterseg.data.formats.camvid import CLASSES
from clusterseg.data.synth.encode import png
from clusterseg.data.synth.recipe import PARTS, Recipe, scene_key
from clusterseg.data.synth.street import street_scene

OPTIONS: frozenset[str] = frozenset()


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
    for part in PARTS:
        numbers = range(recipe.count(part))
        lines = "".join(f"{_image(part, n)} {_mask(part, n)}\n" for n in numbers)
        yield f"{part}.txt", lines.encode()
        for n in numbers:
            image, labels = street_scene(scene_key(recipe, part, n), *recipe.size)
            yield _image(part, n), png(image)
            yield _mask(part, n), png(labels)


def _image(part: str, number: int) -> str:
    return f"{part}/synth_{number:06d}.png"


def _mask(part: str, number: int) -> str:
    return f"{part}annot/synth_{number:06d}.png"
