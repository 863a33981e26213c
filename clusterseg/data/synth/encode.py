"""Pixels -> the bytes of a file."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def png(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    """uint8 [height, width] or [height, width, 3], or uint16 [height, width] -> a PNG."""
    return _saved(Image.fromarray(pixels))


def palette_png(values: NDArray[np.uint8], colors: Sequence[tuple[int, int, int]]) -> bytes:
    """A PNG whose pixels are indices into up to 256 colours."""
    picture = Image.fromarray(values).convert("L")
    picture.putpalette([channel for color in colors for channel in color])
    return _saved(picture)


def jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """uint8 [height, width, 3] -> a JPEG, as good as those of photographs."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=92)
    return buffer.getvalue()


def _saved(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    # Level 1: the noise hardly compresses, and level 6 takes five times as long.
    picture.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
