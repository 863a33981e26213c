"""Draws street scenes as Cityscapes labels them: all its classes, instances, groups and void.

The same streets as `street`, with what CamVid's twelve classes don't tell apart: riders and their
bicycles, six further kinds of vehicles, walls, terrain, traffic lights. As there, everything is
placed in fractions of the height and width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clusterseg.data.cityscapes import LABELS
from clusterseg.data.synth import street
from clusterseg.data.synth.canvas import Canvas, Rgb
from clusterseg.data.synth.draws import Draws
from clusterseg.data.synth.edges import near_changes

Painter = Callable[[Canvas, Draws, float, float, float], None]

_ID = {label.name: label.id for label in LABELS}
_COUNTED = frozenset(label.id for label in LABELS if label.has_instances)

# What `street` paints, by its numbers; everything else is painted as _OWN + id.
_OWN = 64
_OF_STREET = {
    street.SKY: "sky",
    street.BUILDING: "building",
    street.POLE: "pole",
    street.ROAD: "road",
    street.PAVEMENT: "sidewalk",
    street.TREE: "vegetation",
    street.SIGN: "traffic sign",
    street.FENCE: "fence",
    street.CAR: "car",
    street.PEDESTRIAN: "person",
    street.BICYCLIST: "bicycle",
    street.VOID: "ego vehicle",
}


@dataclass(frozen=True)
class CityScene:
    """`image` uint8 [height, width, 3] RGB; `label_ids` uint8 and `instance_ids` uint16, both
    [height, width], as `labelIds` and `instanceIds` files hold them.
    """

    image: NDArray[np.uint8]
    label_ids: NDArray[np.uint8]
    instance_ids: NDArray[np.uint16]


def city_scene(key: tuple[int, int], height: int, width: int) -> CityScene:
    """The scene of a key of two integers; the second must be below 2^63."""
    draws = Draws(key)
    canvas = Canvas(height, width, draws, Draws((key[0], key[1] | 1 << 63)))
    horizon = draws.number(0.36, 0.46)
    vanishing = draws.number(0.42, 0.58)

    canvas.fill(street.SKY, draws.pick(street.SKIES), grain=8, cloud=30)
    street.houses(canvas, draws, horizon)
    street.ground(canvas, draws, horizon, vanishing)
    _verges(canvas, draws, horizon)
    street.trees(canvas, draws, horizon)
    if draws.chance(0.5):
        street.fence(canvas, draws, horizon)
    _wall(canvas, draws, horizon)
    _crowd(canvas, draws, horizon)
    _traffic(canvas, draws, horizon, vanishing)
    _surroundings(canvas, draws)
    image = canvas.image(light=draws.number(0.72, 1.18), noise=14)
    return CityScene(image, _label_ids(canvas), _instance_ids(canvas))


def coarse(scene: CityScene, reach: int) -> CityScene:
    """As a quick annotator would leave it: what is within `reach` pixels of another label or
    object, along its row or column, is unlabeled.
    """
    ids = scene.instance_ids
    inside = ~near_changes(ids, reach)
    unlabeled = _ID["unlabeled"]
    return CityScene(
        scene.image,
        np.where(inside, scene.label_ids, np.uint8(unlabeled)),
        np.where(inside, ids, np.uint16(unlabeled)),
    )


def _label_ids(canvas: Canvas) -> NDArray[np.uint8]:
    table = np.arange(256).astype(np.uint8) - np.uint8(_OWN)
    for number, name in _OF_STREET.items():
        table[number] = _ID[name]
    ids: NDArray[np.uint8] = table[canvas.labels]
    return ids


def _instance_ids(canvas: Canvas) -> NDArray[np.uint16]:
    """id x 1000 + number for each object, counted by label from 0 on; the id for all else."""
    seen: dict[int, int] = {}
    table = [0]
    for label in canvas.object_labels:
        number = seen.get(label, 0)
        seen[label] = number + 1
        table.append(label * 1000 + number)
    numbered: NDArray[np.uint16] = np.array(table, np.uint16)[canvas.objects]
    return np.where(numbered > 0, numbered, _label_ids(canvas).astype(np.uint16))


def _own(name: str) -> int:
    return _OWN + _ID[name]


def _verges(canvas: Canvas, draws: Draws, horizon: float) -> None:
    """Grass, a parking place or rails beside the road."""
    grass = canvas.vary((105, 150, 70), 14)
    left = draws.pick((-0.05, 0.72))
    canvas.box(
        _own("terrain"), (left, horizon + 0.02, left + 0.33, horizon + 0.11), grass, grain=30
    )
    name, color = draws.pick((("parking", (120, 112, 118)), ("rail track", (120, 96, 82))))
    other = draws.pick((-0.05, 0.75))
    place = (other, horizon + 0.15, other + 0.3, horizon + 0.22)
    canvas.box(_own(name), place, canvas.vary(color, 8), grain=20)


def _wall(canvas: Canvas, draws: Draws, horizon: float) -> None:
    left = draws.pick((-0.02, 0.68))
    box = (left, horizon - 0.05, left + 0.34, horizon + draws.number(0.04, 0.07))
    canvas.box(_own("wall"), box, canvas.vary((176, 150, 168), 10), grain=8)
    if draws.chance(0.3):
        x = draws.number(0.1, 0.6)
        rail = (x, horizon + 0.03, x + 0.2, horizon + 0.05)
        canvas.box(_own("guard rail"), rail, (188, 190, 196), grain=4)


def _crowd(canvas: Canvas, draws: Draws, horizon: float) -> None:
    """People, or cars, far away that can't be told apart: a group, not instances."""
    if draws.chance(0.6):
        x, foot = draws.number(0.15, 0.8), horizon + 0.06
        for i in range(draws.whole(3, 5)):
            street.person(canvas, draws, street.PEDESTRIAN, (x + 0.015 * i, foot, 0.11))
    if draws.chance(0.3):
        x = draws.number(0.3, 0.6)
        for i in range(3):
            street.car(canvas, draws, x + 0.03 * i, horizon + 0.05, 0.02)


def _traffic(canvas: Canvas, draws: Draws, horizon: float, vanishing: float) -> None:
    """The far ones first; as many instances as Cityscapes has in a picture (19 in the mean)."""
    kinds: list[Painter] = []
    kinds += [_car] * draws.whole(3, 9) + [_pedestrian] * draws.whole(3, 9)
    kinds += [_cyclist] * draws.whole(1, 3) + [street.pole] * draws.whole(1, 2)
    kinds += [_traffic_light] * draws.whole(1, 2)
    kinds += [draws.pick(_VEHICLES) for _ in range(draws.whole(2, 3))]
    # Most are far away, and small.
    placed = sorted((0.06 + 0.6 * draws.number(0, 1) ** 2, i) for i in range(len(kinds)))
    for depth, i in placed:
        kinds[i](canvas, draws, vanishing, horizon + depth * (1 - horizon), depth)


def _surroundings(canvas: Canvas, draws: Draws) -> None:
    """What counts nowhere: things on the pavement, the camera's own car, the picture's border."""
    if draws.chance(0.5):
        x, foot = draws.number(0.05, 0.9), draws.number(0.7, 0.9)
        name = draws.pick(("static", "dynamic"))
        canvas.box(_own(name), (x, foot - 0.06, x + 0.02, foot), (70, 80, 60), grain=10)
    if draws.chance(0.5):
        middle, seen = draws.number(0.45, 0.55), draws.number(0.05, 0.1)
        canvas.ellipse(street.VOID, (middle, 1.04, 0.5, 0.04 + seen), (35, 35, 40))
    for border in ((0, 0, 1, 0.005), (0, 0.995, 1, 1), (0, 0, 0.004, 1), (0.996, 0, 1, 1)):
        canvas.box(_own("out of roi"), border, (0, 0, 0))


def _car(canvas: Canvas, draws: Draws, vanishing: float, foot: float, depth: float) -> None:
    with canvas.object(_ID["car"]):
        street.car(canvas, draws, vanishing, foot, depth)


def _pedestrian(canvas: Canvas, draws: Draws, vanishing: float, foot: float, depth: float) -> None:
    x = vanishing + draws.pick((-1, 1)) * draws.number(0.6, 0.9) * (0.12 + 0.7 * depth)
    with canvas.object(_ID["person"]):
        street.person(canvas, draws, street.PEDESTRIAN, (x, foot, 0.09 + 0.42 * depth))


def _cyclist(canvas: Canvas, draws: Draws, vanishing: float, foot: float, depth: float) -> None:
    """A bicycle and its rider, two instances; or a motorcycle, thicker and coloured."""
    x, tall = vanishing + draws.number(-0.5, 0.5) * (0.1 + depth), 0.09 + 0.4 * depth
    name = draws.pick(("bicycle", "bicycle", "motorcycle"))
    label, thick = _own(name), 1.6 if name == "motorcycle" else 1.0
    body: Rgb = (205, 60, 30) if name == "motorcycle" else (35, 60, 70)
    with canvas.object(_ID[name]):
        for side in (-0.22, 0.22):
            wheel = (x + side * tall, foot - 0.14 * tall, 0.13 * tall, 0.16 * tall)
            canvas.ellipse(label, wheel, (30, 30, 32))
        upper, lower = foot - 0.34 * tall, foot - (0.34 - 0.07 * thick) * tall
        canvas.box(label, (x - 0.2 * tall, upper, x + 0.2 * tall, lower), body)
    if draws.chance(0.8):
        with canvas.object(_ID["rider"]):
            street.person(canvas, draws, _own("rider"), (x, foot - 0.18 * tall, 0.85 * tall))


def _traffic_light(
    canvas: Canvas, draws: Draws, vanishing: float, foot: float, depth: float
) -> None:
    x = vanishing + draws.pick((-1, 1)) * (0.1 + 0.6 * depth)
    top, thick = foot - 0.2 - 0.5 * depth, 0.003 + 0.01 * depth
    canvas.box(street.POLE, (x - thick, top, x + thick, foot), (80, 82, 86), grain=4)
    half = 0.012 + 0.03 * depth
    case = (x - half, top, x + half, top + 5 * half)
    canvas.box(_own("traffic light"), case, (25, 28, 25))
    for i, lamp in enumerate(((235, 40, 30), (235, 180, 30), (50, 210, 90))):
        middle = (x, top + (0.9 + 1.6 * i) * half, 0.6 * half, 0.6 * half)
        canvas.ellipse(_own("traffic light"), middle, lamp)


def _large(name: str, *, long: float, tall: float, paints: tuple[Rgb, ...], glass: bool) -> Painter:
    """A vehicle that is a box on wheels, with a row of panes or without."""

    def paint(canvas: Canvas, draws: Draws, vanishing: float, foot: float, depth: float) -> None:
        label = _own(name)
        x = vanishing + draws.number(-0.5, 0.5) * (0.2 + depth)
        wide, high = long * (0.12 + 0.4 * depth), tall * (0.12 + 0.4 * depth)
        left, right, top = x - wide / 2, x + wide / 2, foot - high
        color = canvas.vary(draws.pick(paints), 10)
        with canvas.object(_ID[name]):
            canvas.box(label, (left, top, right, foot - 0.1 * high), color, grain=6)
            pane = wide / 6
            for i in range(6 if glass else 1):  # one without a row: the driver's
                start = left + (i + 0.15) * pane
                window = (start, top + 0.15 * high, start + 0.7 * pane, top + 0.45 * high)
                canvas.box(label, window, (60, 75, 90))
            for side in (-0.32, 0.32):
                wheel = (x + side * wide, foot - 0.1 * high, 0.07 * wide, 0.12 * high)
                canvas.ellipse(label, wheel, (25, 25, 28))

    return paint


_VEHICLES: tuple[Painter, ...] = (
    _large("truck", long=0.9, tall=0.75, paints=((225, 130, 40), (240, 150, 60)), glass=False),
    _large("bus", long=1.1, tall=0.7, paints=((235, 205, 60), (225, 190, 40)), glass=True),
    _large("train", long=1.5, tall=0.75, paints=((200, 30, 60), (190, 40, 90)), glass=True),
    _large("caravan", long=0.7, tall=0.55, paints=((238, 236, 228),), glass=False),
    _large("trailer", long=0.7, tall=0.3, paints=((95, 110, 120),), glass=False),
)
