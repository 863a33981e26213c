"""Mends the borders of a prediction from the inside of its regions.

After the idea of SegFix (Yuan 2020, arXiv:2007.04269): labels are least reliable at borders, and
that of a pixel there is better taken from a pixel inside the region that it belongs to. SegFix
learns which way that is, with a network of its own; here it is the nearest inside, and what decides
is how sure the network was of both. Nothing is learned.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_UNSURE = 0.6
"""A pixel gives up its label if it is less sure than this share of the inside's confidence: else
thin things, which have no inside, would be lost."""


def refine(
    labels: NDArray[np.int32], confidence: NDArray[np.float32], width: int
) -> NDArray[np.int32]:
    """int32 [height, width]: the labels, with those mended that are less than `width` pixels from
    another label and have no inside of their own region near.

    `confidence` float32 [height, width] is the probability of each label. A pixel gets the label of
    the nearest inside, where the network was much surer; where there is none it stays as it is.
    """
    inside = ~_near_a_change(labels, width)
    nearest = np.where(inside, labels, -1)
    sure = np.where(inside, confidence, 0).astype(np.float32)
    own = inside.copy()  # pixels whose own region has an inside so near that it is theirs
    for _ in range(2 * width):
        nearest, sure = _spread(nearest, sure)
        own = _grown(own, labels)
    mended = (nearest >= 0) & ~own & (nearest != labels) & (confidence < _UNSURE * sure)
    return np.where(mended, nearest, labels).astype(np.int32)


def _near_a_change(labels: NDArray[np.int32], width: int) -> NDArray[np.bool_]:
    """Whether another label is less than `width` steps away (along rows and columns)."""
    near = np.zeros(labels.shape, np.bool_)
    down, right = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    near[1:] |= down
    near[:-1] |= down
    near[:, 1:] |= right
    near[:, :-1] |= right
    for _ in range(width - 1):
        wider = near.copy()
        for here, there in _neighbours():
            wider[here] |= near[there]
        near = wider
    return near


def _spread(
    nearest: NDArray[np.int32], sure: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """One step from the inside out: pixels without a label get that of the surest neighbour."""
    labels, best = nearest.copy(), sure.copy()
    for here, there in _neighbours():
        better = (nearest[here] < 0) & (nearest[there] >= 0) & (sure[there] > best[here])
        labels[here] = np.where(better, nearest[there], labels[here])
        best[here] = np.where(better, sure[there], best[here])
    return labels, best


def _grown(own: NDArray[np.bool_], labels: NDArray[np.int32]) -> NDArray[np.bool_]:
    """With the neighbours that have the same label."""
    grown = own.copy()
    for here, there in _neighbours():
        grown[here] |= own[there] & (labels[here] == labels[there])
    return grown


def _neighbours() -> list[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """(pixels, their neighbours) above, below, left and right."""
    whole, first, last = slice(None), slice(None, -1), slice(1, None)
    return [
        ((last, whole), (first, whole)),
        ((first, whole), (last, whole)),
        ((whole, last), (whole, first)),
        ((whole, first), (whole, last)),
    ]
