"""Samples that can't be used, where the job says to leave them out.

Left out is a sample, never a step: its place in the global batch is padding, as at the end of an
epoch. So which steps there are, and what else is in them, does not depend on when a bad file is
found, by which rank, or on which side of a resume.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clusterseg.data.dataset import Part
from clusterseg.data.order import PADDING
from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.train.failures import warn

_FEW = 10  # may always be bad; of a large set
_SHARE = 100  # one in so many


class Unreadable:
    """What this rank found in each part so far; each is told once, in the rank's log."""

    def __init__(self) -> None:
        self._found: dict[str, set[int]] = {}

    def without(self, part: Part, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """`indices` with padding in place of the samples that were found to be bad."""
        found = self._found.get(part.name)
        if not found:
            return indices
        return np.where(np.isin(indices, sorted(found)), PADDING, indices)

    def stand_in(self, part: Part) -> int:
        """The first sample not known to be bad: what a batch shows that has none of its own."""
        found = self._found.get(part.name, set())
        return next((index for index in range(len(part)) if index not in found), 0)

    def leave_out(self, part: Part, index: int, why: ClustersegError) -> None:
        """Sample `index` is bad. Raises ClustersegError if that makes too many of them."""
        found = self._found.setdefault(part.name, set())
        if index in found:
            raise why  # it was left out already, and stands in for itself: nothing else is left
        found.add(index)
        warn(f"{why.message}: left out (train.data.on_unreadable: skip)")
        most = min(max(_FEW, len(part) // _SHARE), len(part) - 1)
        if len(found) > most:
            raise ClustersegError(
                f"{part.name} part: {len(found)} of {len(part)} samples can't be used, more than "
                f"the {most} that are left out; the last one: {why.message}",
                code="unreadable-data",
                help="this rank's log names them all; repair the data set, or take them from its "
                "list",
                exit_code=ExitCode.FAILED,
            )
