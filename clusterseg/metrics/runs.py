"""Stretches over which label maps do not change: a street of two million pixels has some 18,000.

What is counted by pixel is counted by run instead, weighted by its length: ten times less work.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.integer[Any]]

_BLOCK = 1 << 17  # pixels at a time, so that what is between two steps stays in the cache
_LOOKED_AT = 64  # rows of a map
_SHORT = 4  # pixels
_DENSE = 1 << 16  # keys from which on counting cells beats sorting


def run_lengths(*maps: Map) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """(starts, lengths) of the runs, row after row, over which none of the `maps` changes.

    The maps have one shape. `starts` are places in the flat maps; lengths add up to all pixels.
    """
    flat = [one.reshape(-1) for one in maps]
    size = flat[0].size
    if not size:
        return np.zeros(0, np.intp), np.zeros(0, np.int64)
    changes, more = np.empty((2, min(size, _BLOCK)), np.bool_)
    found = [np.zeros(1, np.intp)]  # the first pixel begins a run
    for begin in range(1, size, _BLOCK):
        end = min(begin + _BLOCK, size)
        block, other = changes[: end - begin], more[: end - begin]
        np.not_equal(flat[0][begin:end], flat[0][begin - 1 : end - 1], out=block)
        for one in flat[1:]:
            np.not_equal(one[begin:end], one[begin - 1 : end - 1], out=other)
            np.logical_or(block, other, out=block)
        found.append(np.flatnonzero(block) + begin)
    starts = np.concatenate(found)
    return starts, np.diff(starts, append=size)


def is_ragged(*maps: Map) -> bool:
    """Whether runs are so short that single pixels are counted faster; judged by some rows."""
    rows = [one[:: max(1, len(one) // _LOOKED_AT)] for one in maps]
    starts, _ = run_lengths(*rows)
    return starts.size * _SHORT > rows[0].size


def counts(
    keys: NDArray[np.int64], lengths: NDArray[np.int64] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(keys that occur, in ascending order, and the sum of the lengths of each). Keys are >= 0;
    without lengths, each is 1."""
    if keys.size < _DENSE:
        occurring, place = np.unique(keys, return_inverse=True)
        return occurring, _added(place.reshape(-1), lengths, len(occurring))
    cells = _added(keys, lengths, 0)
    found = np.flatnonzero(cells)
    return found, cells[found]


def histogram(
    keys: NDArray[np.integer[Any]], lengths: NDArray[np.int64] | None, cells: int
) -> NDArray[np.int64]:
    """int64 [cells]: the sum of the lengths of each key from 0 to cells - 1, or their number."""
    if lengths is not None:
        return _added(keys, lengths, cells)
    found = np.zeros(cells, np.int64)
    for begin in range(0, keys.size, _BLOCK):  # bincount makes int64 of its keys
        found += np.bincount(keys[begin : begin + _BLOCK], minlength=cells)
    return found


def _added(keys: NDArray[Any], lengths: NDArray[np.int64] | None, cells: int) -> NDArray[np.int64]:
    if lengths is None:
        return np.bincount(keys, minlength=cells).astype(np.int64, copy=False)
    # bincount adds in float64, which is exact below 2**53 pixels.
    return np.bincount(keys, weights=lengths, minlength=cells).astype(np.int64)
