"""Random numbers that are the same with every numpy and on every platform."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Item = TypeVar("Item")


class Draws:
    """A stream of numbers for one key.

    Made of the raw 64-bit words of Philox alone: numpy keeps those for ever (NEP 19), but not
    what its distributions make of them. The arithmetic is exact or correctly rounded by IEEE 754.
    """

    def __init__(self, key: tuple[int, int]) -> None:
        self._words = np.random.Philox(key=np.array([part % 2**64 for part in key], np.uint64))
        self._ahead: list[int] = []

    def number(self, low: float, high: float) -> float:
        """Uniform in [low, high)."""
        if not self._ahead:  # one by one they would cost a hundred times as much
            self._ahead = self._words.random_raw(256).tolist()
        return low + (high - low) * ((self._ahead.pop() >> 11) * 2.0**-53)

    def whole(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return low + int(self.number(0, high - low + 1))

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.number(0, 1) < probability

    def pick(self, items: Sequence[Item]) -> Item:
        """One of the items."""
        return items[self.whole(0, len(items) - 1)]

    def field(self, *shape: int) -> NDArray[np.float32]:
        """float32 of `shape`, multiples of 2^-16 uniform in [0, 1)."""
        count = math.prod(shape)
        # Four numbers a word, in the order of little-endian machines on all.
        words = self._words.random_raw(-(-count // 4)).astype("<u8")
        scaled: NDArray[np.float32] = words.view("<u2")[:count].astype(np.float32)
        return (scaled * np.float32(2.0**-16)).reshape(shape)

    def smooth(self, height: int, width: int, cell: float) -> NDArray[np.float32]:
        """float32 [height, width] in [0, 1): noise that varies over `cell` pixels."""
        grid = self.field(int(height / cell) + 2, int(width / cell) + 2)
        y, x = np.arange(height) / cell, np.arange(width) / cell
        top, left = y.astype(np.int64), x.astype(np.int64)
        down = (y - top).astype(np.float32)[:, np.newaxis]
        right = (x - left).astype(np.float32)
        rows = grid[:, left] + (grid[:, left + 1] - grid[:, left]) * right
        mixed: NDArray[np.float32] = rows[top] + (rows[top + 1] - rows[top]) * down
        return mixed
