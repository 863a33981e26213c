"""A picture whose colours tell its labels, to see whether the two stay together."""

import numpy as np

CELL = 16
GRID = np.random.default_rng(5).integers(0, 8, (4, 5))
SHADE = 30.0  # grey level of a class = class * SHADE


def board():
    """A board of flat cells, grey by class, and its labels."""
    labels = np.kron(GRID, np.ones((CELL, CELL))).astype(np.int32)
    return np.repeat((labels * SHADE)[..., np.newaxis], 3, axis=-1).astype(np.float32), labels


def far_from_edges(labels, reach):
    """Pixels whose surroundings, `reach` pixels around, are in the picture and hold one label."""
    size = 2 * reach + 1
    padded = np.pad(labels, reach, constant_values=-1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size))
    return windows.min(axis=(2, 3)) == windows.max(axis=(2, 3))


def aligned(image, labels, no_label=255, shift=0.0, reach=2):
    """The share of labelled pixels away from edges whose grey is that of their label."""
    inner = far_from_edges(labels, reach) & (labels != no_label)
    right = np.abs(image[..., 0] - labels * SHADE - shift) < 0.5
    assert inner.sum() > 30
    return right[inner].mean()
