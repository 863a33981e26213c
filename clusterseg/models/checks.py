"""Refuses options and sizes that a network can't take, and names what it can."""

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


def check_width(model: str, width: float) -> None:
    """Raises ClustersegError (`bad-option`) for a factor of the filters out of 0.1 to 8."""
    if not 0.1 <= width <= 8:
        raise ClustersegError(f"{model}: width must be 0.1 to 8, not {width}", code="bad-option")


def check_dropout(model: str, dropout: float) -> None:
    """Raises ClustersegError (`bad-option`) for a share that is not in [0, 1)."""
    if not 0 <= dropout < 1:
        raise ClustersegError(
            f"{model}: dropout must be at least 0 and below 1, not {dropout}", code="bad-option"
        )


def check_filters(model: str, option: str, filters: int | None) -> None:
    """Raises ClustersegError (`bad-option`) for a count below 1; None is left to the network."""
    if filters is not None and filters < 1:
        raise ClustersegError(
            f"{model}: {option} must be at least 1, not {filters}", code="bad-option"
        )
