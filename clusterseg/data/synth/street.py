"""Draws street scenes with their labels: sky, houses, trees, road, pavement, traffic.

Everything is placed in fractions of the height and width, nearer things lower and larger, so a
scene has the same composition at any size. Numbers of classes are CamVid's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clusterseg.data.synth.canvas import Box, Canvas, Edge, Rgb
from clusterseg.data.synth.draws import Draws

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST, VOID = range(12)

SKIES: tuple[Rgb, ...] = ((150, 185, 225), (190, 205, 220), (205, 205, 205), (170, 180, 215))
_WALLS: tuple[Rgb, ...] = ((150, 95, 75), (185, 165, 135), (125, 120, 125), (165, 140, 110))
_LEAVES: tuple[Rgb, ...] = ((60, 100, 50), (75, 110, 45), (50, 80, 45), (95, 110, 60))
_SIGNS: tuple[Rgb, ...] = ((200, 40, 40), (225, 195, 40), (40, 70, 190))
PAINTS: tuple[Rgb, ...] = (
    (180, 30, 35), (30, 50, 130), (235, 235, 235), (30, 30, 35), (35, 100, 60), (160, 165, 170),
)  # fmt: skip
_CLOTHES: tuple[Rgb, ...] = ((130, 40, 60), (40, 60, 110), (200, 170, 60), (45, 45, 45))
_SKIN: Rgb = (205, 160, 130)


def street_scene(
    key: tuple[int, int], height: int, width: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """(image [height, width, 3] RGB, labels [height, width] 0 to 11) for a key of two integers.

    The second must be below 2^63.
    """
    draws = Draws(key)
    canvas = Canvas(height, width, draws, Draws((key[0], key[1] | 1 << 63)))
    horizon = draws.number(0.38, 0.5)
    vanishing = draws.number(0.38, 0.62)  # where the road's edges meet, on the horizon

    canvas.fill(SKY, draws.pick(SKIES), grain=8, cloud=30)
    houses(canvas, draws, horizon)
    ground(canvas, draws, horizon, vanishing)
    trees(canvas, draws, horizon)
    if draws.chance(0.6):
        fence(canvas, draws, horizon)
    _traffic(canvas, draws, horizon, vanishing)
    if draws.chance(0.5):  # the camera car's bonnet, which CamVid leaves without a class
        middle, height_seen = draws.number(0.4, 0.6), draws.number(0.06, 0.1)
        canvas.ellipse(VOID, (middle, 1.04, 0.45, height_seen), (35, 35, 40))
    return canvas.image(light=draws.number(0.72, 1.18), noise=14), canvas.labels


def houses(canvas: Canvas, draws: Draws, horizon: float) -> None:
    left = -0.05
    while left < 1.0:
        right = left + draws.number(0.08, 0.24)
        # Rows of houses rise towards both sides of the picture.
        nearness = abs(left + right - 1)
        top = horizon - draws.number(0.06, 0.2) - 0.28 * nearness
        wall = canvas.vary(draws.pick(_WALLS), 18)
        if not draws.chance(0.12):
            canvas.box(BUILDING, (left, top, right, horizon + 0.06), wall, grain=14)
            _windows(canvas, draws, (left, top, right, horizon))
        left = right


def _windows(canvas: Canvas, draws: Draws, house: Box) -> None:
    left, top, right, bottom = house
    pane: Rgb = draws.pick(((60, 70, 85), (95, 100, 105), (190, 190, 170)))
    step_x, step_y = draws.number(0.03, 0.05), draws.number(0.05, 0.08)
    wide, tall = 0.5 * step_x, 0.55 * step_y
    y = top + 0.3 * step_y
    while y + tall < bottom:
        x = left + 0.3 * step_x
        while x + wide < right:
            canvas.box(BUILDING, (x, y, x + wide, y + tall), pane)
            x += step_x
        y += step_y


def ground(canvas: Canvas, draws: Draws, horizon: float, vanishing: float) -> None:
    slab = canvas.vary((152, 144, 140), 10)
    canvas.box(PAVEMENT, (0, horizon, 1, 1), slab, grain=16)
    tar = canvas.vary((88, 88, 94), 10)
    near_left, near_right = draws.number(-0.35, 0.05), draws.number(0.95, 1.35)
    half = draws.number(0.02, 0.05)  # of the road's width at the horizon
    far = (horizon, vanishing - half, vanishing + half)
    canvas.trapezoid(ROAD, far, (1.0, near_left, near_right), tar, grain=18)

    middle, span = (near_left + near_right) / 2, 1 - horizon
    for i in range(6):  # the dashed line is road too
        edges: list[Edge] = []
        for depth in ((i / 6) ** 2, ((i + 0.5) / 6) ** 2):
            x, thick = vanishing + (middle - vanishing) * depth, 0.002 + 0.012 * depth
            edges.append((horizon + depth * span, x - thick, x + thick))
        canvas.trapezoid(ROAD, edges[0], edges[1], (215, 215, 205))


def trees(canvas: Canvas, draws: Draws, horizon: float) -> None:
    for _ in range(draws.whole(1, 4)):
        x = draws.pick((draws.number(0.0, 0.3), draws.number(0.7, 1.0)))
        size = draws.number(0.08, 0.2)
        foot = horizon + draws.number(0.0, 0.12)
        trunk = 0.07 * size
        canvas.box(TREE, (x - trunk, foot - 2 * size, x + trunk, foot), (80, 62, 48))
        leaves = canvas.vary(draws.pick(_LEAVES), 12)
        for _ in range(5):
            blob = (
                x + size * draws.number(-0.4, 0.4),
                foot - size * draws.number(1.3, 2.1),
                size * draws.number(0.35, 0.6),
                size * draws.number(0.4, 0.7),
            )
            canvas.ellipse(TREE, blob, canvas.vary(leaves, 8), grain=34)


def fence(canvas: Canvas, draws: Draws, horizon: float) -> None:
    left = draws.pick((-0.02, 0.7))
    right, foot = left + draws.number(0.15, 0.32), horizon + draws.number(0.06, 0.12)
    top = foot - draws.number(0.06, 0.1)
    canvas.box(FENCE, (left, top, right, foot), canvas.vary((118, 88, 64), 14), grain=10)
    x = left
    while x < right:  # gaps between the boards, dark but fence
        canvas.box(FENCE, (x, top, min(x + 0.006, right), foot), (55, 42, 34))
        x += 0.022


def _traffic(canvas: Canvas, draws: Draws, horizon: float, vanishing: float) -> None:
    """Cars, cyclists, people, poles and signs, the far ones first."""
    kinds = (
        [car] * draws.whole(1, 4)
        + [_pedestrian] * draws.whole(1, 4)
        + [_cyclist] * draws.whole(0, 2)
        + [pole] * draws.whole(1, 4)
    )
    placed = sorted((draws.number(0.08, 0.75), i) for i in range(len(kinds)))
    for depth, i in placed:
        foot = horizon + depth * (1 - horizon)
        kinds[i](canvas, draws, vanishing, foot, depth)


def car(canvas: Canvas, draws: Draws, vanishing: float, foot: float, depth: float) -> None:
    x = vanishing + draws.number(-0.55, 0.55) * depth
    long = 0.06 + 0.3 * depth
    tall = long * 0.62
    paint = canvas.vary(draws.pick(PAINTS), 12)
    body = (x - 0.5 * long, foot - 0.6 * tall, x + 0.5 * long, foot - 0.1 * tall)
    canvas.box(CAR, body, paint, grain=6)
    roof = (foot - tall, x - 0.3 * long, x + 0.3 * long)
    canvas.trapezoid(
        CAR, roof, (foot - 0.58 * tall, x - 0.42 * long, x + 0.42 * long), paint, grain=6
    )
    glass = (foot - 0.93 * tall, x - 0.26 * long, x + 0.26 * long)
    canvas.trapezoid(
        CAR, glass, (foot - 0.62 * tall, x - 0.36 * long, x + 0.36 * long), (70, 85, 95)
    )
    for side in (-0.34, 0.34):
        wheel = (x + side * long, foot - 0.1 * tall, 0.09 * long, 0.14 * tall)
        canvas.ellipse(CAR, wheel, (25, 25, 28))


def _pedestrian(canvas: Canvas, draws: Draws, vanishing: float, foot: float, depth: float) -> None:
    side = draws.pick((-1, 1)) * draws.number(0.6, 0.9)
    x = vanishing + side * (0.12 + 0.7 * depth)
    person(canvas, draws, PEDESTRIAN, (x, foot, 0.09 + 0.42 * depth))


def _cyclist(canvas: Canvas, draws: Draws, vanishing: float, foot: float, depth: float) -> None:
    x, tall = vanishing + draws.number(-0.5, 0.5) * (0.1 + depth), 0.09 + 0.4 * depth
    for side in (-0.22, 0.22):
        wheel = (x + side * tall, foot - 0.14 * tall, 0.13 * tall, 0.16 * tall)
        canvas.ellipse(BICYCLIST, wheel, (30, 30, 32))
    frame = (x - 0.2 * tall, foot - 0.34 * tall, x + 0.2 * tall, foot - 0.28 * tall)
    canvas.box(BICYCLIST, frame, (120, 30, 30))
    person(canvas, draws, BICYCLIST, (x, foot - 0.18 * tall, 0.85 * tall))


def person(canvas: Canvas, draws: Draws, label: int, place: tuple[float, float, float]) -> None:
    """`place`: x of the middle, y of the feet, height."""
    x, foot, tall = place
    wide = 0.14 * tall
    legs = (x - 0.7 * wide, foot - 0.48 * tall, x + 0.7 * wide, foot)
    canvas.box(label, legs, (50, 50, 62), grain=6)
    clothes = canvas.vary(draws.pick(_CLOTHES), 14)
    coat = (x - wide, foot - 0.84 * tall, x + wide, foot - 0.44 * tall)
    canvas.box(label, coat, clothes, grain=8)
    head = (x, foot - 0.92 * tall, 0.6 * wide, 0.08 * tall)
    canvas.ellipse(label, head, canvas.vary(_SKIN, 12))


def pole(canvas: Canvas, draws: Draws, vanishing: float, foot: float, depth: float) -> None:
    x = vanishing + draws.pick((-1, 1)) * (0.12 + 0.75 * depth)
    top, thick = foot - 0.25 - 0.6 * depth, 0.004 + 0.012 * depth
    metal = canvas.vary((95, 96, 100), 14)
    canvas.box(POLE, (x - thick, top, x + thick, foot), metal, grain=4)
    if draws.chance(0.6):
        half = 0.02 + 0.05 * depth
        plate = (x - half, top, x + half, top + 2 * half)
        canvas.box(SIGN, plate, draws.pick(_SIGNS))
        bar = (x - 0.6 * half, top + 0.8 * half, x + 0.6 * half, top + 1.2 * half)
        canvas.box(SIGN, bar, (235, 235, 235))
