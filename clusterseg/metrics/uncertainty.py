"""How sure a network is of a pixel, from several predictions that differ.

Of class probabilities p_1 ... p_T of one pixel: the mean; its entropy H(mean p), which is high
wherever the network can't tell; and the mutual information H(mean p) - mean H(p), which is high
only where the predictions contradict each other, so where the network lacks training data (Houlsby
2011, arXiv:1112.5745; Kendall and Gal 2017, arXiv:1703.04977). In nats; at most log(classes).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Maps = NDArray[np.float32]


class Running:
    """Sums over predictions: memory is that of one, however many there are."""

    def __init__(self) -> None:
        self.count = 0
        self._probabilities: NDArray[np.float64] | None = None
        self._entropy: NDArray[np.float64] | None = None

    def add(self, probabilities: Maps) -> None:
        """One prediction: float [..., classes], each pixel's sum 1."""
        entropy = entropy_of(probabilities)
        if self._probabilities is None or self._entropy is None:
            self._probabilities = probabilities.astype(np.float64)
            self._entropy = entropy.astype(np.float64)
        else:
            self._probabilities += probabilities
            self._entropy += entropy
        self.count += 1

    @property
    def mean(self) -> Maps:
        """float32 [..., classes]: the mean of the probabilities."""
        if self._probabilities is None:
            raise ValueError("no prediction was added")
        return (self._probabilities / self.count).astype(np.float32)

    @property
    def entropy(self) -> Maps:
        """float32 [...]: the entropy of the mean."""
        if self._probabilities is None:
            raise ValueError("no prediction was added")
        return entropy_of(self._probabilities / self.count).astype(np.float32)

    @property
    def mutual_information(self) -> Maps:
        """float32 [...]: the entropy of the mean less the mean entropy; never below 0."""
        if self._probabilities is None or self._entropy is None:
            raise ValueError("no prediction was added")
        whole = entropy_of(self._probabilities / self.count)
        return np.maximum(whole - self._entropy / self.count, 0).astype(np.float32)


def entropy_of(probabilities: NDArray[np.floating]) -> NDArray[np.floating]:
    """[...]: the sum of -p log p over the last axis; 0 log 0 is 0."""
    positive = probabilities > 0
    logarithm = np.log(np.where(positive, probabilities, 1))
    found: NDArray[np.floating] = -(probabilities * logarithm).sum(axis=-1)
    return found
