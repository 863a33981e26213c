"""Random numbers that are the same with every numpy and on every platform."""

from __future__ import annotations

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
        self._words = np.random.Philox(key=[part % 2**64 for part in key])

    def field(self, *shape: int) -> NDArray[np.float64]:
        """float64 of `shape`, uniform in [0, 1)."""
        words = self._words.random_raw(int(np.prod(shape)))
        return ((words >> np.uint64(11)).astype(np.float64) * 2.0**-53).reshape(shape)

    def number(self, low: float, high: float) -> float:
        """Uniform in [low, high)."""
        return low + (high - low) * float(self.field(1)[0])

    def whole(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return low + int(self.field(1)[0] * (high - low + 1))

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return bool(self.field(1)[0] < probability)

    def pick(self, items: Sequence[Item]) -> Item:
        """One of the items."""
        return items[self.whole(0, len(items) - 1)]

    def smooth(self, height: int, width: int, cell: float) -> NDArray[np.float64]:
        """float64 [height, width] in [0, 1): noise that varies over `cell` pixels."""
        rows, columns = int(height / cell) + 2, int(width / cell) + 2
        grid = self.field(rows, columns)
        y, x = np.arange(height) / cell, np.arange(width) / cell
        top, left = y.astype(np.int64), x.astype(np.int64)
        down, right = (y - top)[:, np.newaxis], x - left
        above = grid[top][:, left] * (1 - right) + grid[top][:, left + 1] * right
        below = grid[top + 1][:, left] * (1 - right) + grid[top + 1][:, left + 1] * right
        mixed: NDArray[np.float64] = above * (1 - down) + below * down
        return mixed
