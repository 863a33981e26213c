"""Draws scenes of many classes, for the layouts that have a hundred of them.

Not of this world: a class is known by its colour, its shape and its texture, all of which follow
from its number alone, so a network can learn any number of them.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from clusterseg.data.synth.canvas import Canvas, Rgb
from clusterseg.data.synth.draws import Draws

_SHAPES = ("box", "ellipse", "trapezoid")


def things_scene(
    key: tuple[int, int], height: int, width: int, *, stuff: Sequence[int], things: Sequence[int]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """(image [height, width, 3] RGB, labels [height, width]) for a key of two integers.

    Two bands show classes of `stuff`, before which some of `things` stand. The second integer
    must be below 2^63.
    """
    draws = Draws(key)
    canvas = Canvas(height, width, draws, Draws((key[0], key[1] | 1 << 63)))
    upper, lower = draws.pick(stuff), draws.pick(stuff)
    horizon = draws.number(0.3, 0.6)
    canvas.fill(upper, canvas.vary(class_color(upper), 10), grain=10, cloud=24)
    canvas.box(lower, (0, horizon, 1, 1), canvas.vary(class_color(lower), 10), grain=24)
    for _ in range(draws.whole(2, 6)):
        _thing(canvas, draws, draws.pick(things))
    return canvas.image(light=draws.number(0.8, 1.15), noise=12), canvas.labels


def class_color(number: int) -> Rgb:
    """The colour that a class is drawn in: red, green, blue, 0 to 255."""
    draws = Draws((number, 0))
    hue, strength, value = draws.number(0, 1), draws.number(0.2, 0.9), draws.number(0.35, 0.95)
    red, green, blue = colorsys.hsv_to_rgb(hue, strength, value)
    return 255 * red, 255 * green, 255 * blue


def _thing(canvas: Canvas, draws: Draws, number: int) -> None:
    color = canvas.vary(class_color(number), 10)
    x, y = draws.number(0.1, 0.9), draws.number(0.2, 0.85)
    wide, tall = draws.number(0.06, 0.2), draws.number(0.08, 0.22)
    shape, grain = _SHAPES[number % 3], 4 + 6 * (number % 5)
    if shape == "box":
        canvas.box(number, (x - wide, y - tall, x + wide, y + tall), color, grain=grain)
    elif shape == "ellipse":
        canvas.ellipse(number, (x, y, wide, tall), color, grain=grain)
    else:
        top, foot = (y - tall, x - 0.4 * wide, x + 0.4 * wide), (y + tall, x - wide, x + wide)
        canvas.trapezoid(number, top, foot, color, grain=grain)
