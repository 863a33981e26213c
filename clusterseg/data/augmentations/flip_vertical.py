"""`flip_vertical: p`: mirrors top and bottom with probability p."""

from __future__ import annotations

from typing import Any

from clusterseg.data.augment import Augmentation, Context
from clusterseg.data.augmentations.flip_horizontal import flip


def build(value: Any, context: Context) -> Augmentation:
    return flip("flip_vertical", value, axis=0)
