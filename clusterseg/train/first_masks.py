"""What the first batch of a training tells of the masks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_WHITE = 255  # what drawing programs write where something is


def ignored_foreground(
    labels: NDArray[np.int32], *, classes: int, ignore: int | None
) -> str | None:
    """What to tell where masks of two classes seem to hold 0 and 255, and 255 is ignored.

    `labels` are a batch's, [n, height, width]; what is padding has nothing but `ignore`. Such masks
    train to a perfect score and teach nothing. Augmentations fill with the ignored label, too: it
    is a guess, and says so.
    """
    if classes != 2 or ignore != _WHITE:
        return None
    masks = [mask for mask in labels if (mask != ignore).any()]
    if not masks or set(np.unique(masks)) != {0, ignore}:
        return None
    return (
        f"the masks read first ({len(masks)}) show class 0 and {ignore}, which counts nowhere "
        f"(loss.ignore), and no class 1: if {ignore} is meant to be class 1, nothing of it is "
        "learned; see `clusterseg data check`"
    )
