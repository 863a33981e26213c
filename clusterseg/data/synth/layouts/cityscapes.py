"""Writes scenes in the layout of Cityscapes.

    leftImg8bit/{train,val,test,train_extra}/<city>/<city>_<seq>_<frame>_leftImg8bit.png
    gtFine/{train,val,test}/<city>/<city>_<seq>_<frame>_gtFine_{labelIds,instanceIds,color}.png
    gtCoarse/{train,train_extra,val}/<city>/<city>_<seq>_<frame>_gtCoarse_{...}.png

As there, the test part's masks hold no labels, and there are no `labelTrainIds` files, which the
benchmark's own scripts make. gtCoarse and train_extra are written where the recipe has `extra`
pictures.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from clusterseg.data.cityscapes import LABELS
from clusterseg.data.synth.city import CityScene, city_scene, coarse
from clusterseg.data.synth.encode import png
from clusterseg.data.synth.recipe import EXTRA, PARTS, Recipe, scene_key

OPTIONS: frozenset[str] = frozenset({"extra"})

_KINDS = ("labelIds", "instanceIds", "color")
_CITIES = {
    "train": ("altstadt", "bergheim", "seehafen"),
    "val": ("lindental", "neuburg"),
    "test": ("talbruck",),
    EXTRA: ("moorwald", "sandfeld"),
}
_FOLDER = {"train": "train", "val": "val", "test": "test", EXTRA: "train_extra"}
_COLORS = np.zeros((256, 3), np.uint8)
for _one in LABELS:
    if _one.id >= 0:
        _COLORS[_one.id] = _one.color


def names(recipe: Recipe) -> list[str]:
    """Relative paths of all files, in the order of `files`."""
    written = []
    for part, number in _pictures(recipe):
        written.append(_image(part, number))
        for truth in _truths(recipe, part):
            written += [_mask(part, number, truth, kind) for kind in _KINDS]
    return written


def files(recipe: Recipe) -> Iterator[tuple[str, bytes]]:
    """(relative path, content) of every file, made one by one."""
    for part, number in _pictures(recipe):
        scene = city_scene(scene_key(recipe, part, number), *recipe.size)
        yield _image(part, number), png(scene.image)
        for truth in _truths(recipe, part):
            shown = annotation(scene, part, truth)
            colors = _COLORS[shown.label_ids]
            contents = (png(shown.label_ids), png(shown.instance_ids), png(colors))
            for kind, content in zip(_KINDS, contents, strict=True):
                yield _mask(part, number, truth, kind), content


def annotation(scene: CityScene, part: str, truth: str) -> CityScene:
    """The scene with the labels that `gtFine` or `gtCoarse` has of it."""
    if truth == "gtCoarse":
        return coarse(scene, max(1, scene.label_ids.shape[0] // 64))
    if part == "test":
        border = np.where(scene.label_ids <= 3, scene.label_ids, np.uint8(0))
        return CityScene(scene.image, border, border.astype(np.uint16))
    return scene


def _pictures(recipe: Recipe) -> Iterator[tuple[str, int]]:
    for part in (*PARTS, EXTRA):
        for number in range(recipe.count(part)):
            yield part, number


def _truths(recipe: Recipe, part: str) -> tuple[str, ...]:
    if part == EXTRA:
        return ("gtCoarse",)
    return ("gtFine", "gtCoarse") if recipe.extra and part != "test" else ("gtFine",)


def _place(part: str, number: int) -> str:
    cities = _CITIES[part]
    city = cities[number % len(cities)]
    return f"{_FOLDER[part]}/{city}/{city}_{number:06d}_000019"


def _image(part: str, number: int) -> str:
    return f"leftImg8bit/{_place(part, number)}_leftImg8bit.png"


def _mask(part: str, number: int, truth: str, kind: str) -> str:
    return f"{truth}/{_place(part, number)}_{truth}_{kind}.png"
