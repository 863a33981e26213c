"""Sizes that a network can't take, and the ones beside them that it can."""

from __future__ import annotations

from clusterseg.errors import ClustersegError


def check_divisible(model: str, size: tuple[int, int], divisor: int) -> None:
    """Raises ClustersegError (`bad-size`) unless `divisor` divides height and width of `size`."""
    height, width = size
    if not (height % divisor or width % divisor):
        return
    below = [side // divisor * divisor for side in size]
    above = [-(-side // divisor) * divisor for side in size]
    near = [f"[{h}, {w}]" for h, w in (below, above) if h and w]
    raise ClustersegError(
        f"{model} can't take {height}x{width} pictures: "
        f"height and width must be divisible by {divisor}",
        code="bad-size",
        help=f"set train.data.size to a size that fits, e.g. {' or '.join(near)}",
    )
