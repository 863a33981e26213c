"""What a rank wants of the others: flags that travel in the reduction of a step.

The reduction sums them over the ranks, so whatever one of them wants holds for all after the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clusterseg.train.stopping import SOURCES

# Behind the stop sources, in this order.
_NAMES = ("cut", "save", "check", "give_up", "void")
COUNT = len(SOURCES) + len(_NAMES)
VOID = len(SOURCES) + _NAMES.index("void")


@dataclass(frozen=True)
class Agreed:
    """What holds for all ranks: `stops` by SOURCES, `cut` the window here, `save` here, `check`
    here that all hold equal weights.

    `give_up`: rank 0 can't save, and all ranks end with its reason. `void`: a rank had no data; the
    step has changed nothing and does not count, and what else is wished but to end is wished again.
    """

    stops: list[bool]
    cut: bool = False
    save: bool = False
    check: bool = False
    give_up: bool = False
    void: bool = False


def pack(stops: Sequence[bool], **wishes: bool) -> NDArray[np.float32]:
    """float32 [COUNT]: the wishes of one rank, by the names of Agreed; those left out are no."""
    if unknown := wishes.keys() - set(_NAMES):
        raise TypeError(f"nobody knows the wish {', '.join(sorted(unknown))}")
    return np.asarray([*stops, *(wishes.get(name, False) for name in _NAMES)], np.float32)


def unpack(sums: NDArray[np.float64]) -> Agreed:
    """`sums`, [COUNT], are those of all ranks' wishes."""
    flags = [bool(one) for one in sums]
    stops, rest = flags[: len(SOURCES)], flags[len(SOURCES) :]
    return Agreed(stops, **dict(zip(_NAMES, rest, strict=True)))
