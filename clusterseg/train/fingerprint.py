"""A hash of the weights at the speed of memory, for looks in the midst of training.

Each array is read as a grid of 64-bit words; the sums of its columns and rows are hashed instead
of the words. Any flipped bit changes one of each. Changes go unseen only if they cancel out in
rows and columns at once, which no hardware does by chance. A plain sum, of bits or of numbers,
would not see that x and -x changed places.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

_COLUMNS = 1024  # words


def fingerprint(arrays: Iterable[NDArray[np.uint8]]) -> int:
    """63 bits over the bytes of all `arrays` (flat, contiguous), in their order.

    No copy of them is made: several times as quick as a SHA-256 over one.
    """
    digest = hashlib.sha256()
    for array in arrays:
        rows = array.nbytes // (8 * _COLUMNS)
        whole = 8 * _COLUMNS * rows
        if rows:
            grid = array[:whole].view(np.uint64).reshape(rows, _COLUMNS)
            for axis in (0, 1):
                digest.update(grid.sum(axis).tobytes())  # wraps
        digest.update(array[whole:].tobytes())
    return int.from_bytes(digest.digest()[:8], "big") >> 1
