"""Borders are mended where the network was unsure, and nothing else is touched."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from clusterseg.metrics.scores import mean_iou
from clusterseg.models.refine import refine


def scene() -> Any:
    """Three regions: a disc on two halves."""
    rows, columns = np.mgrid[:80, :120]
    labels = (columns > 60).astype(np.int32)
    labels[(rows - 40) ** 2 + (columns - 60) ** 2 < 22**2] = 2
    return labels


def near_border(labels: Any, width: int) -> Any:
    near = np.zeros(labels.shape, bool)
    for down in range(-width, width + 1):
        for right in range(-width, width + 1):
            near |= np.roll(labels, (down, right), (0, 1)) != labels
    return near


def iou(truth: Any, labels: Any) -> float:
    return mean_iou(np.bincount((truth * 3 + labels).ravel(), minlength=9).reshape(3, 3))


def ragged(truth: Any, seed: int, unsure: float) -> tuple[Any, Any]:
    """Three in ten pixels at the borders have another label, of which the network is unsure."""
    random = np.random.default_rng(seed)
    wrong = near_border(truth, 2) & (random.random(truth.shape) < 0.3)
    labels = np.where(wrong, (truth + random.integers(1, 3, truth.shape)) % 3, truth)
    confidence = np.where(wrong, unsure, 0.95).astype(np.float32)
    return labels.astype(np.int32), confidence


@pytest.mark.parametrize("seed", range(3))
def test_ragged_borders_become_better(seed: int) -> None:
    truth = scene()
    labels, confidence = ragged(truth, seed, 0.4)
    mended = refine(labels, confidence, 3)
    assert iou(truth, mended) > iou(truth, labels) + 0.02


def test_what_the_network_is_sure_of_stays() -> None:
    truth = scene()
    labels, confidence = ragged(truth, 0, 0.9)
    np.testing.assert_array_equal(refine(labels, confidence, 3), labels)


def test_clean_borders_and_the_inside_stay() -> None:
    truth = scene()
    unsure = np.where(near_border(truth, 1), 0.35, 0.95).astype(np.float32)
    mended = refine(truth, unsure, 3)
    inside = ~near_border(truth, 4)
    np.testing.assert_array_equal(mended[inside], truth[inside])
    assert iou(truth, mended) > iou(truth, truth) - 0.001


def test_thin_things_that_are_seen_stay_and_without_an_inside_nothing_changes() -> None:
    labels = np.zeros((40, 40), np.int32)
    labels[:, 20:22] = 1
    confidence = np.where(labels == 1, 0.7, 0.99).astype(np.float32)
    np.testing.assert_array_equal(refine(labels, confidence, 3), labels)
    noise = np.indices((9, 9)).sum(axis=0).astype(np.int32) % 2
    np.testing.assert_array_equal(refine(noise, np.full((9, 9), 0.3, np.float32), 3), noise)
