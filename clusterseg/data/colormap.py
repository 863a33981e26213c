"""Colours for classes that have none of their own."""

from __future__ import annotations

from clusterseg.data.dataset import Color


def default_colors(classes: int) -> tuple[Color, ...]:
    """Those of Pascal VOC's masks: the bits of the number dealt out to red, green and blue, the
    lowest ones first, each channel filled from its highest bit on. All different up to 256.
    """
    colors = []
    for number in range(classes):
        channels = [0, 0, 0]
        for bit in range(8):
            channels[bit % 3] |= (number >> bit & 1) << (7 - bit // 3)
        colors.append((channels[0], channels[1], channels[2]))
    return tuple(colors)
