"""A picture and its labels, painted together with shapes in fractions of height and width."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from clusterseg.data.synth.draws import Draws

Rgb = tuple[float, float, float]
Box = tuple[float, float, float, float]  # left, top, right, bottom
Ellipse = tuple[float, float, float, float]  # x, y of the middle, half width, half height
Edge = tuple[float, float, float]  # y, left, right
Window = tuple[slice, slice]


class Canvas:
    """Coordinates: x and y from 0 (left, top) to 1 (right, bottom); what is outside is cut off.

    A shape covers the pixels whose centres lie in it. `grain` is the strength of its texture in
    grey levels, over some pixels. `textures` is a stream of its own, since it gives as many numbers
    as the picture has pixels: shapes and colours are the same at any size.

    `labels` is uint8 [height, width]; `objects`, uint16 of that shape, has the number of the object
    that a pixel shows, from 1 on in the order of `object`, and 0 for what is no object.
    `object_labels[number - 1]` is the label that it was announced with.
    """

    def __init__(self, height: int, width: int, draws: Draws, textures: Draws) -> None:
        self.labels = np.zeros((height, width), np.uint8)
        self.objects = np.zeros((height, width), np.uint16)
        self.object_labels: list[int] = []
        self._object = 0
        self._color = np.zeros((height, width, 3), np.float32)
        self._draws, self._textures = draws, textures
        self._height, self._width = height, width
        self._x = (np.arange(width) + 0.5) / width
        self._y = (np.arange(height) + 0.5) / height
        # Two textures for all shapes: drawing one for each would be most of the time.
        fine = textures.smooth(height, width, max(1.5, height / 120))
        coarse = textures.smooth(height, width, max(2.0, height / 24))
        self._texture = fine + coarse - 1  # -1 to 1
        self._clouds = textures.smooth(height, width, max(2.0, height / 6)) * 2 - 1

    def vary(self, color: Rgb, most: float) -> Rgb:
        """The colour, each channel changed by up to `most` grey levels."""
        red, green, blue = (channel + self._draws.number(-most, most) for channel in color)
        return (red, green, blue)

    @contextmanager
    def object(self, label: int) -> Iterator[None]:
        """What is painted inside is one object."""
        self.object_labels.append(label)
        self._object = len(self.object_labels)
        try:
            yield
        finally:
            self._object = 0

    def fill(self, label: int, color: Rgb, *, grain: float, cloud: float) -> None:
        """The whole picture; `cloud` is the strength of a texture as large as clouds."""
        self.labels[:] = label
        texture = grain * self._texture + cloud * self._clouds
        self._color[:] = np.array(color, np.float32) + texture[..., np.newaxis]

    def box(self, label: int, box: Box, color: Rgb, *, grain: float = 0) -> None:
        rows, columns = self._window(box)
        self._paint((rows, columns), None, label, color, grain)

    def ellipse(self, label: int, ellipse: Ellipse, color: Rgb, *, grain: float = 0) -> None:
        x, y, half_width, half_height = ellipse
        rows, columns = self._window(
            (x - half_width, y - half_height, x + half_width, y + half_height)
        )
        across = (self._x[columns] - x) / half_width
        down = (self._y[rows, np.newaxis] - y) / half_height
        self._paint((rows, columns), across * across + down * down <= 1, label, color, grain)

    def trapezoid(
        self, label: int, upper: Edge, lower: Edge, color: Rgb, *, grain: float = 0
    ) -> None:
        """Between two horizontal edges, with straight sides."""
        rows, columns = self._window(
            (min(upper[1], lower[1]), upper[0], max(upper[2], lower[2]), lower[0])
        )
        share = (self._y[rows, np.newaxis] - upper[0]) / (lower[0] - upper[0])
        left = upper[1] + (lower[1] - upper[1]) * share
        right = upper[2] + (lower[2] - upper[2]) * share
        x = self._x[columns]
        self._paint((rows, columns), (x >= left) & (x <= right), label, color, grain)

    def image(self, *, light: float, noise: float) -> NDArray[np.uint8]:
        """uint8 [height, width, 3]: the colours times `light`, with `noise` grey levels a pixel.

        The sum of two uniform numbers stands for the camera's noise.
        """
        grains = self._textures.field(2, self._height, self._width, 3)
        lit = self._color * light + noise * (grains[0] + grains[1] - 1)
        pixels: NDArray[np.uint8] = np.clip(np.floor(lit + 0.5), 0, 255).astype(np.uint8)
        return pixels

    def _window(self, box: Box) -> Window:
        left, top, right, bottom = box
        rows = np.searchsorted(self._y, (top, bottom))
        columns = np.searchsorted(self._x, (left, right))
        return slice(int(rows[0]), int(rows[1])), slice(int(columns[0]), int(columns[1]))

    def _paint(
        self,
        window: Window,
        inside: NDArray[np.bool_] | None,
        label: int,
        color: Rgb,
        grain: float,
    ) -> None:
        painted = np.array(color, np.float32) + grain * self._texture[window][..., np.newaxis]
        if inside is None:
            self.labels[window] = label
            self.objects[window] = self._object
            self._color[window] = painted
        else:
            self.labels[window][inside] = label
            self.objects[window][inside] = self._object
            self._color[window][inside] = painted[inside]
