"""Class weights that make rare classes count as much as frequent ones."""

from __future__ import annotations

from collections.abc import Sequence


def balanced_weights(class_counts: Sequence[int]) -> tuple[float, ...]:
    """Median-frequency balancing (Eigen and Fergus, ICCV 2015): median count / count of a class.

    The median is over the classes that occur; a class without a pixel weighs 0, for it has
    nothing to teach.
    """
    present = sorted(count for count in class_counts if count > 0)
    if not present:
        return tuple(0.0 for _ in class_counts)
    middle = len(present) // 2
    median = present[middle] if len(present) % 2 else (present[middle - 1] + present[middle]) / 2
    return tuple(median / count if count > 0 else 0.0 for count in class_counts)
