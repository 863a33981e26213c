"""A small version of each network that can be made small: a size that fits, and options."""

from __future__ import annotations

from typing import Any

SMALL: dict[str, tuple[tuple[int, int], dict[str, Any]]] = {
    "fastscnn": ((33, 47), {"width": 0.25}),
    "fastscnn-seed": ((33, 47), {"width": 0.25, "pyramid": "seed"}),
    "unet": ((16, 32), {"base_filters": 2}),
    "separable_unet": ((16, 32), {"base_filters": 2}),
    "segnet": ((17, 31), {"width": 0.1}),
    "bayes_segnet": ((17, 31), {"width": 0.1}),
    "vgg_segnet": ((17, 31), {"width": 0.1}),
    "lmsegnet": ((16, 24), {}),
}
