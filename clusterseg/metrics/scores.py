"""Scores from a confusion matrix (rows truth, columns prediction), in numpy.

A matrix is summed over all images and ranks first: the mean of ranks' scores is another number
(a toy case gives 0.45 against 0.818), and wrong wherever the ranks saw different pixels.
Classes that a score is undefined for are NaN, and left out of means; a mean of nothing is NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.integer[Any]]


def pixel_accuracy(matrix: Matrix) -> float:
    """Correct pixels / all pixels."""
    return _ratio(np.trace(matrix), matrix.sum())


def class_accuracy(matrix: Matrix) -> NDArray[np.float64]:
    """float64 [classes]: correct pixels of a class / its true pixels (its recall)."""
    return _ratios(np.diagonal(matrix), matrix.sum(axis=1))


def mean_accuracy(matrix: Matrix) -> float:
    """Mean of `class_accuracy` over the classes that occur in the truth."""
    return _mean(class_accuracy(matrix))


def class_iou(matrix: Matrix) -> NDArray[np.float64]:
    """float64 [classes]: TP / (TP + FP + FN), the Cityscapes and PASCAL VOC definition.

    NaN where a class is neither in the truth nor predicted.
    """
    hit = np.diagonal(matrix)
    return _ratios(hit, matrix.sum(axis=0) + matrix.sum(axis=1) - hit)


def mean_iou(matrix: Matrix) -> float:
    """Mean of `class_iou` over the classes for which it is defined."""
    return _mean(class_iou(matrix))


def class_f1(matrix: Matrix) -> NDArray[np.float64]:
    """float64 [classes]: 2 TP / (2 TP + FP + FN), the harmonic mean of precision and recall.

    It is also the Dice coefficient. NaN where a class is neither in the truth nor predicted.
    """
    return _ratios(2 * np.diagonal(matrix), matrix.sum(axis=0) + matrix.sum(axis=1))


def mean_f1(matrix: Matrix) -> float:
    """Mean of `class_f1` over the classes for which it is defined."""
    return _mean(class_f1(matrix))


def frequency_weighted_iou(matrix: Matrix) -> float:
    """Mean of `class_iou` weighted by the true pixels of each class (Long 2015, section 5)."""
    true = matrix.sum(axis=1)
    occurs = true > 0
    return _ratio((class_iou(matrix)[occurs] * true[occurs]).sum(), true.sum())


def _ratios(part: Matrix, whole: Matrix) -> NDArray[np.float64]:
    defined = whole > 0
    quotient = part / np.where(defined, whole, 1)
    return np.where(defined, quotient, np.nan)


def _ratio(part: Any, whole: Any) -> float:
    return float(part / whole) if whole > 0 else float("nan")


def _mean(values: NDArray[np.float64]) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")
