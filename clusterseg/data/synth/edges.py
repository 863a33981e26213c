"""Where a map changes from one value to another."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def near_changes(values: NDArray[Any], reach: int) -> NDArray[np.bool_]:
    """bool [height, width]: the pixels less than `reach` pixels from a change along their row or
    column; with `reach` 1 the two pixels on either side of it.
    """
    near = np.zeros(values.shape, bool)
    for found, ids in ((near, values), (near.T, values.T)):
        changes = ids[1:] != ids[:-1]
        count = len(ids)
        for shift in range(1 - reach, 1 + reach):
            # A change between rows i and i + 1 reaches from i - reach + 1 to i + reach.
            first, last = max(0, shift), min(count, count - 1 + shift)
            found[first:last] |= changes[first - shift : last - shift]
    return near
